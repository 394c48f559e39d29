/**
 * What all nodes must hold in the end, under last-update-wins: every committed transaction once, one after the
 * other in the order of its version (commit time, then the node's name, then the order at its node). Per key the
 * newest put or delete remains, and a truncate takes what is older than it.
 */

/** The version of a row. */
export interface Version {
  /** Commit time at the origin, as text that sorts as the time does. */
  readonly timestamp: string;
  readonly node: string;
}

/** One change as its author saw it: `row` is a digest of the whole row after it. */
export type Change =
  | { readonly kind: "put"; readonly table: string; readonly key: string; readonly row: string }
  | { readonly kind: "delete"; readonly table: string; readonly key: string }
  | { readonly kind: "truncate"; readonly table: string };

/** A committed transaction. */
export interface Committed extends Version {
  readonly id: number;
  /** Its place among those of its node. */
  readonly order: number;
  readonly changes: readonly Change[];
}

/** A row and its version. */
export interface ModelRow extends Version {
  readonly row: string;
}

/** Rows by table and key; keys of the map as {@link rowKey} makes them. */
export type ModelState = ReadonlyMap<string, ModelRow>;

/** A table and a key as one text. */
export function rowKey(table: string, key: string): string {
  return `${table}\n${key}`;
}

/** The parts of {@link rowKey}. */
export function splitRowKey(text: string): { table: string; key: string } {
  const end = text.indexOf("\n");
  return { table: text.slice(0, end), key: text.slice(end + 1) };
}

/** Which of two transactions is older: negative if the first is. */
export function compareVersions(one: Committed, other: Committed): number {
  return compareText(one.timestamp, other.timestamp) || compareText(one.node, other.node) ||
    one.order - other.order;
}

function compareText(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** What remains of all transactions. */
export function expectedState(transactions: readonly Committed[]): ModelState {
  const state = new Map<string, ModelRow>();
  for (const { timestamp, node, changes } of transactions.toSorted(compareVersions)) {
    for (const change of changes) {
      switch (change.kind) {
        case "put":
          state.set(rowKey(change.table, change.key), { row: change.row, timestamp, node });
          break;
        case "delete":
          state.delete(rowKey(change.table, change.key));
          break;
        case "truncate":
          for (const key of state.keys()) if (splitRowKey(key).table === change.table) state.delete(key);
          break;
      }
    }
  }
  return state;
}

/** One line of the history of a key. */
export interface HistoryLine extends Version {
  readonly transaction: number;
  readonly change: Change;
}

/** Every change that touched a key, oldest version first. */
export function historyOf(
  transactions: readonly Committed[],
  { table, key }: { table: string; key: string },
): HistoryLine[] {
  return transactions.toSorted(compareVersions).flatMap(({ id, timestamp, node, changes }) =>
    changes.filter((change) => change.table === table && (change.kind === "truncate" || change.key === key))
      .map((change) => ({ transaction: id, timestamp, node, change }))
  );
}
