/**
 * Changes in quarantine as rows that people read: values by column, in the text that came.
 */
import type { QuarantineChange } from "../api/quarantine_schemas.ts";
import { MmliteError } from "../errors.ts";
import type { Message, Relation, Tuple } from "../pgoutput/message.ts";

type Values = Record<string, string | null>;

const TEXT = new TextDecoder();

/** The relation of a change of one row. */
export function relationIdOf(message: Message): number | undefined {
  return "relationId" in message ? message.relationId : undefined;
}

/** One change, with the columns of its relation. */
export function showChange(
  { number, table, change }: { number: number; table: string; change: Message },
  relationOf: (id: number) => Relation | undefined,
): QuarantineChange {
  const shown = { number, table };
  switch (change.kind) {
    case "truncate":
      return { ...shown, kind: "truncate", old: null, new: null, unchanged: [] };
    case "insert":
    case "update":
    case "delete": {
      const relation = relationOf(change.relationId)!;
      const { oldKey, oldTuple, newTuple } = {
        oldKey: undefined,
        oldTuple: undefined,
        newTuple: undefined,
        ...change,
      };
      return {
        ...shown,
        kind: change.kind,
        old: oldTuple !== undefined ? valuesOf(relation, oldTuple) : keyOf(relation, oldKey),
        new: newTuple === undefined ? null : valuesOf(relation, newTuple),
        unchanged: newTuple === undefined ? [] : unchangedOf(relation, newTuple),
      };
    }
    default:
      throw new MmliteError("internal", `Cannot show a ${change.kind} as a change`);
  }
}

/** Every value that came. */
function valuesOf({ columns }: Relation, tuple: Tuple): Values {
  const values: [string, string | null][] = [];
  tuple.forEach((value, i) => {
    if (value.kind !== "unchanged") values.push([columns[i].name, textOf(value)]);
  });
  return Object.fromEntries(values);
}

/** Of an old key only the columns of the key mean something. */
function keyOf({ columns }: Relation, key: Tuple | undefined): Values | null {
  if (key === undefined) return null;
  const pairs = key.map((value, i) => [columns[i], textOf(value)] as const);
  return Object.fromEntries(pairs.filter(([column]) => column.key).map(([{ name }, text]) => [name, text]));
}

function unchangedOf({ columns }: Relation, tuple: Tuple): string[] {
  return columns.filter((_, i) => tuple[i]?.kind === "unchanged").map(({ name }) => name);
}

function textOf(value: Tuple[number]): string | null {
  return "bytes" in value ? TEXT.decode(value.bytes) : null;
}
