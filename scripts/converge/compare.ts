/**
 * How what the nodes hold differs from what they must hold. Pure.
 */
import type { Committed, ModelRow, ModelState } from "./model.ts";

/** A row as a node holds it; null what the node cannot tell of its version. */
export interface HeldRow {
  readonly row: string;
  readonly timestamp: string | null;
  readonly node: string | null;
}

/** What one node holds in the end. */
export interface NodeState {
  readonly node: string;
  readonly rows: ReadonlyMap<string, HeldRow>;
  /** Ids of the transactions in its log, as often as they are there. */
  readonly log: readonly number[];
  /** Rows in `mmlite.quarantine`. */
  readonly quarantined: number;
}

/** A key that is not the same everywhere. */
export interface Difference {
  readonly key: string;
  /** `row`: a node holds another row than the model, or none, or one too many; `version`: only the version differs. */
  readonly kind: "row" | "version";
  readonly expected: ModelRow | undefined;
  readonly held: ReadonlyMap<string, HeldRow | undefined>;
}

/** Everything that is wrong. */
export interface Verdict {
  readonly differences: readonly Difference[];
  /** One sentence each. */
  readonly violations: readonly string[];
}

/** Compares the rows of all nodes with the model. */
export function compareRows(expected: ModelState, states: readonly NodeState[]): Difference[] {
  const keys = new Set([...expected.keys(), ...states.flatMap(({ rows }) => [...rows.keys()])]);
  const differences: Difference[] = [];
  for (const key of [...keys].sort()) {
    const wanted = expected.get(key);
    const held = new Map(states.map(({ node, rows }) => [node, rows.get(key)]));
    const rows = [...held.values()];
    if (rows.some((row) => row?.row !== wanted?.row)) {
      differences.push({ key, kind: "row", expected: wanted, held });
    } else if (wanted !== undefined && rows.some((row) => !isVersion(row!, wanted))) {
      differences.push({ key, kind: "version", expected: wanted, held });
    }
  }
  return differences;
}

function isVersion({ timestamp, node }: HeldRow, wanted: ModelRow): boolean {
  return timestamp === wanted.timestamp && (node === null || node === wanted.node);
}

/** Keys of which not all nodes hold the same row, whatever it should be. */
export function countUnequal(states: readonly NodeState[]): number {
  const keys = new Set(states.flatMap(({ rows }) => [...rows.keys()]));
  return [...keys].filter((key) => new Set(states.map(({ rows }) => rows.get(key)?.row)).size > 1).length;
}

/** Checks that every node has applied every transaction once. */
export function checkLogs(committed: readonly Committed[], states: readonly NodeState[]): string[] {
  const violations: string[] = [];
  for (const { node, log, quarantined } of states) {
    const counts = new Map<number, number>();
    for (const id of log) counts.set(id, (counts.get(id) ?? 0) + 1);
    const missing = committed.filter(({ id }) => !counts.has(id));
    const known = new Set(committed.map(({ id }) => id));
    const unknown = [...counts.keys()].filter((id) => !known.has(id));
    const doubled = [...counts].filter(([, count]) => count > 1).map(([id]) => id);
    if (missing.length > 0) {
      violations.push(`${node} lacks ${missing.length} transactions: ${list(missing.map(showCommitted))}`);
    }
    if (unknown.length > 0) {
      violations.push(`${node} has transactions that nobody committed: ${list(unknown)}`);
    }
    if (doubled.length > 0) violations.push(`${node} has transactions more than once: ${list(doubled)}`);
    if (quarantined > 0) violations.push(`${node} has ${quarantined} rows in mmlite.quarantine`);
  }
  return violations;
}

const LISTED = 8;

function list(items: readonly unknown[]): string {
  const rest = items.length > LISTED ? ` and ${items.length - LISTED} more` : "";
  return items.slice(0, LISTED).join(", ") + rest;
}

function showCommitted({ id, node }: Committed): string {
  return `${id} of ${node}`;
}
