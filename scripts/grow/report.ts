/**
 * What rounds came to, for people.
 */
import { formatTable } from "../text_table.ts";
import { FAULT_KINDS } from "./plan.ts";
import type { RoundOutcome } from "./round.ts";

/** Differences of one kind that are printed, at most. */
const MAX_SHOWN = 20;

/** Whether anything was not as it ought to be. */
export function isBad({ rows, versions, entries }: RoundOutcome): boolean {
  return rows.length + versions.length + entries.length > 0;
}

/** One line. */
export function roundLine(outcome: RoundOutcome): string {
  const { plan, joins, transactions, longest, ms } = outcome;
  const majors = plan.nodes.map(({ major }) => major).join(" ");
  const copies = joins.map(({ rows, copyMs, faults }) =>
    `${rows} rows in ${seconds(copyMs)}${faults.length > 0 ? ` (${faults.join(", ")})` : ""}`
  );
  const verdict = isBad(outcome)
    ? `${outcome.rows.length} rows, ${outcome.versions.length} versions and ${outcome.entries.length} entries differ`
    : "equal";
  return `round ${plan.seed}: ${verdict}; PostgreSQL ${majors}, ${plan.byToken ? "by token" : "by peers"}; ` +
    `${copies.join("; ")}; ${transactions} transactions, longest ${
      longest.ms.toFixed(0)
    } ms at ${longest.node} ` +
    `during ${longest.during}; ${seconds(ms)}`;
}

/** What differs. */
export function differenceLines({ rows, versions, entries }: RoundOutcome): string[] {
  return [rows, versions, entries].flatMap((all) => [
    ...all.slice(0, MAX_SHOWN).map((one) => `  ${one}`),
    ...(all.length > MAX_SHOWN ? [`  and ${all.length - MAX_SHOWN} more`] : []),
  ]);
}

/** The sums of all rounds. */
export function sumTable(outcomes: readonly RoundOutcome[]): string[] {
  const joins = outcomes.flatMap((one) => one.joins);
  const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);
  const longest = (numbers: readonly number[]) => Math.max(0, ...numbers);
  const rows: [string, string | number][] = [
    ["rounds", outcomes.length],
    ["of them by token, with TLS", outcomes.filter(({ plan }) => plan.byToken).length],
    ["joins", joins.length],
    ["of them with faults", joins.filter(({ faults }) => faults.length > 0).length],
    ...FAULT_KINDS.map((kind) =>
      [kind, sum(joins.map(({ faults }) => faults.filter((one) => one === kind).length))] as [
        string,
        number,
      ]
    ),
    ["rows copied", sum(joins.map(({ rows }) => rows))],
    ["longest copy", seconds(longest(joins.map(({ copyMs }) => copyMs)))],
    ["transactions", sum(outcomes.map(({ transactions }) => transactions))],
    ["longest transaction", `${longest(outcomes.map(({ longest }) => longest.ms)).toFixed(0)} ms`],
    ["versions compared", sum(outcomes.map(({ versionsCompared }) => versionsCompared))],
    ["rows that differ", sum(outcomes.map(({ rows }) => rows.length))],
    ["versions that differ", sum(outcomes.map(({ versions }) => versions.length))],
    ["entries not there once", sum(outcomes.map(({ entries }) => entries.length))],
  ];
  return formatTable(rows.map(([name, value]) => [name, String(value)]));
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
