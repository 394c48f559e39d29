/**
 * What the rows of a change say, given the table that it is of: which values came, which is the key, and whether two
 * values are the same. Pure.
 */
import { MmliteError } from "../errors.ts";
import type { Tuple, Update } from "../pgoutput/message.ts";
import type { TargetRelation } from "./target_relation.ts";

const EMPTY = new Uint8Array();
const NULL_VALUE = { kind: "null" } as const;
const NONE: ReadonlySet<number> = new Set();
/**
 * Rows of at least so many bytes as text may have values that are stored apart, and not sent where they stay as they
 * are. As PostgreSQL stores it a row takes 128 bytes for that at the least, by default 2,000, and text may be shorter.
 */
const LONG_ROW_BYTES = 128;

/** A row's key; a TOASTed part that was not sent is that of the row before it. */
export function keyValues(tuple: Tuple, key: readonly number[], before?: Tuple): Uint8Array[] {
  return key.map((index) => {
    const value = tuple[index];
    const known = value.kind === "unchanged" ? before?.[index] : value;
    return known?.kind === "text" ? known.bytes : EMPTY;
  });
}

/** A tuple without what is not of its key. */
export function onlyKey({ map }: TargetRelation, tuple: Tuple): Tuple {
  const keys = new Set(map.key!.columns.map(({ index }) => index));
  return tuple.map((value, index) => keys.has(index) ? value : NULL_VALUE);
}

/** The new row, with what did not come taken from the old row if that came whole, or from the old key. */
export function fillUnchanged(target: TargetRelation, { newTuple, oldTuple, oldKey }: Update): Tuple {
  checkWidth(target, newTuple);
  if (oldTuple !== undefined) checkWidth(target, oldTuple);
  if (oldKey !== undefined) checkWidth(target, oldKey);
  const old = oldTuple ?? oldKey;
  if (old === undefined || !newTuple.some((value) => value.kind === "unchanged")) return newTuple;
  const keys = oldTuple === undefined ? new Set(target.map.key?.columns.map(({ index }) => index)) : null;
  return newTuple.map((value, index) =>
    value.kind === "unchanged" && (keys === null || keys.has(index)) ? old[index] : value
  );
}

/** Throws a `protocol` error where the tuple has more or fewer columns than the relation. */
export function checkWidth({ map }: TargetRelation, tuple: Tuple): void {
  if (tuple.length === map.columns.length) return;
  throw new MmliteError(
    "protocol",
    `Cannot apply a change to "${map.label}": it has ${tuple.length} columns, the relation ${map.columns.length}`,
  );
}

/** The text of a column as it came, null for NULL; throws a `protocol` error where there is none. */
export function valueOf({ map }: TargetRelation, tuple: Tuple, index: number): Uint8Array | null {
  const value = tuple[index];
  switch (value.kind) {
    case "text":
      return value.bytes;
    case "null":
      return null;
    default:
      throw new MmliteError(
        "protocol",
        `Cannot apply a change to "${map.label}": column "${map.columns[index].name}" came ${
          value.kind === "binary" ? "in binary form" : "without its value"
        }`,
      );
  }
}

/** Whether the second value is the first one, or was not sent because it is. */
export function sameValue(a: Tuple[number], b: Tuple[number]): boolean {
  if (b.kind === "unchanged") return true;
  if (a.kind !== "text" || b.kind !== "text") return a.kind === b.kind;
  if (a.bytes.length !== b.bytes.length) return false;
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return false;
  return true;
}

/** The columns of which a tuple has such a value. */
export function indexesOf(tuple: Tuple, kind: "null" | "unchanged"): ReadonlySet<number> {
  let found: Set<number> | undefined;
  for (let i = 0; i < tuple.length; i++) if (tuple[i].kind === kind) (found ??= new Set()).add(i);
  return found ?? NONE;
}

/** Whether a row may have values that are not sent later, see {@link LONG_ROW_BYTES}. */
export function isLong({ map }: TargetRelation, tuple: Tuple): boolean {
  if (!map.sendsPart) return false;
  let length = 0;
  for (const value of tuple) {
    if (value.kind === "unchanged") return true;
    if (value.kind === "text") length += value.bytes.length;
  }
  return length >= LONG_ROW_BYTES;
}
