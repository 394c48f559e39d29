/**
 * What removing a peer leaves undelivered, for people.
 */
import type { RemovalReport } from "../api/removal_schemas.ts";
import { formatTable, heading } from "./output.ts";
import { formatBytes } from "./peer_table.ts";

/** The report in some lines. */
export function formatRemoval({ peer, undelivered, received, remedies }: RemovalReport): string {
  return [
    describeUndelivered(peer, undelivered),
    ...tablesOf(undelivered),
    `received of ${peer}: up to ${received.applied_lsn ?? "nothing"}${committed(received.committed_at)}`,
    ...received.others.map(({ peer: other, compared, applied_lsn, committed_at, problem }) =>
      compared === "unknown"
        ? `  ${other}: unknown, ${problem ?? "nothing is known of it here"}`
        : `  ${other}: ${WORDS[compared]}, up to ${applied_lsn}${committed(committed_at)}`
    ),
    ...remedies.map((remedy) => `hint: ${remedy}`),
  ].join("\n");
}

const WORDS = {
  equal: "the same",
  lacks: "lacks transactions that are here",
  has_more: "has more than is here",
};

function committed(at: string | null): string {
  return at === null ? "" : `, committed ${at}`;
}

function describeUndelivered(peer: string, undelivered: RemovalReport["undelivered"]): string {
  const { transactions, changes, complete, problem, after_lsn, wal_bytes } = undelivered;
  const { first_committed_at: first, last_committed_at: last } = undelivered;
  const where = after_lsn === null ? "" : `, ${formatBytes(wal_bytes)} of WAL after ${after_lsn}`;
  if (problem !== null) return `not delivered to ${peer}: cannot be counted, ${problem}${where}`;
  const atLeast = complete ? "" : "more than ";
  const between = first === null ? "" : `, committed ${first} to ${last}${complete ? "" : " and later"}`;
  return `not delivered to ${peer}: ${atLeast}${count(transactions, "transaction")} of ` +
    `${atLeast}${count(changes, "change")}${where}${between}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

function tablesOf({ tables }: RemovalReport["undelivered"]): string[] {
  if (tables.length === 0) return [];
  const rows = tables.map(({ table, ...counts }) => [
    table,
    ...(["inserts", "updates", "deletes", "truncates"] as const).map((kind) => String(counts[kind])),
  ]);
  return [formatTable([heading("TABLE", "INSERTS", "UPDATES", "DELETES", "TRUNCATES"), ...rows], false)];
}
