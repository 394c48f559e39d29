/**
 * Turns one row change into runs of prepared statements. Values stay the bytes that came.
 */
import { MmliteError } from "../errors.ts";
import type { Pipeline } from "../pg/pipeline.ts";
import { TEXT_FORMAT } from "../pg/query_bytes.ts";
import type { Delete, Insert, Tuple, Update } from "../pgoutput/message.ts";
import type { MappedRelation } from "./relation_map.ts";
import type { RelationStatements, StatementCache } from "./statement_cache.ts";
import {
  deleteStatement,
  evictStatement,
  insertStatement,
  type MatchShape,
  replaceStatement,
  type StatementShape,
  truncateStatement,
  type UpdateShape,
  updateStatement,
} from "./statements.ts";

/** A change of one row. */
export type RowChange = Insert | Update | Delete;

/** A mapped relation with its prepared statements. */
export interface TargetRelation {
  readonly map: MappedRelation;
  readonly statements: RelationStatements;
  /** Columns that UPDATE cannot set and that are not matched by, so that they may differ here. */
  readonly looseIdentity: boolean;
}

/** A target without statements. */
export function toTarget(map: MappedRelation): TargetRelation {
  const looseIdentity = map.columns.some((column) =>
    column.identityAlways && !map.key?.columns.includes(column)
  );
  return { map, statements: new Map(), looseIdentity };
}

/** The tuples of a change, by the side that parameters name. */
interface Sides {
  readonly old: Tuple | undefined;
  readonly new: Tuple | undefined;
}

const NONE: ReadonlySet<number> = new Set();
const BY_KEY: MatchShape = { byRow: false, nulls: NONE };

/** Writes changes to a pipeline. */
export class ChangeWriter {
  readonly #pipeline: Pipeline;
  readonly #cache: StatementCache;
  readonly #toSink: (shape: StatementShape) => { doing: string; completed(tag: string): void };

  constructor(
    pipeline: Pipeline,
    cache: StatementCache,
    toSink: (shape: StatementShape) => { doing: string; completed(tag: string): void },
  ) {
    this.#pipeline = pipeline;
    this.#cache = cache;
    this.#toSink = toSink;
  }

  /** Writes the statements of one row change. */
  write(target: TargetRelation, change: RowChange): void {
    switch (change.kind) {
      case "insert":
        return this.#insert(target, change.newTuple);
      case "update":
        return this.#update(target, change);
      case "delete":
        return this.#delete(target, change);
    }
  }

  /** Truncates tables in one statement. */
  truncate(targets: readonly TargetRelation[], restartIdentity: boolean): void {
    const shape = truncateStatement(targets.map((target) => target.map), restartIdentity);
    this.#pipeline.prepare({ name: "", sql: shape.sql, parameterTypes: [] });
    this.#pipeline.execute("", this.#toSink(shape));
  }

  #insert(target: TargetRelation, newTuple: Tuple): void {
    checkWidth(target, newTuple);
    const sides = { old: undefined, new: newTuple };
    if (target.looseIdentity && target.map.key !== null) {
      const shape = { keyChanged: false, omitted: NONE, byRow: false, nulls: NONE };
      this.#run(target, "r", () => replaceStatement(target.map, shape), sides);
    }
    this.#run(target, "i", () => insertStatement(target.map), sides);
  }

  #update(target: TargetRelation, change: Update): void {
    const { map } = target;
    const old = change.oldTuple ?? change.oldKey;
    const tuple = fillUnchanged(target, change);
    const sides = { old, new: tuple };
    if (map.key === null && old === undefined) throw unmatchable(target);
    const keyChanged = map.key !== null && old !== undefined &&
      map.key.columns.some(({ index }) => !sameValue(old[index], tuple[index]));
    const omitted = indexesOf(tuple, "unchanged");
    const shape: UpdateShape = { keyChanged, omitted, ...matchShape(target, change) };
    const mask = maskKey(shape);
    // Under a deferrable key the row in the way may be one that this transaction moves away in a moment.
    if (keyChanged && !map.key!.deferrable) this.#run(target, "e", () => evictStatement(map), sides);
    const identityMoves = keyChanged && map.key!.columns.some((column) => column.identityAlways);
    if (target.looseIdentity || identityMoves) {
      if (map.key === null && !identityDiffers(target, sides)) {
        this.#run(target, `u${mask}`, () => updateStatement(map, shape), sides);
        return;
      }
      this.#run(target, `r${mask}`, () => replaceStatement(map, shape), sides);
      if (map.key === null) return;
    }
    // After a replacement the row has its new key.
    const rest = identityMoves ? { ...shape, keyChanged: false, byRow: false, nulls: NONE } : shape;
    this.#run(target, `u${maskKey(rest)}`, () => updateStatement(map, rest), sides);
  }

  #delete(target: TargetRelation, change: Delete): void {
    const old = change.oldTuple ?? change.oldKey;
    if (old === undefined) throw unmatchable(target);
    checkWidth(target, old);
    const match = matchShape(target, change);
    const build = () => deleteStatement(target.map, match);
    this.#run(target, match.byRow ? `d${[...match.nulls].join(",")}` : "d", build, { old, new: undefined });
  }

  #run(target: TargetRelation, key: string, build: () => StatementShape, sides: Sides): void {
    const { name, shape, sink } = this.#cache.get(target.statements, key, build);
    const values: (Uint8Array | null)[] = [];
    for (const { side, index } of shape.parameters) values.push(valueOf(target, sides[side]!, index));
    this.#pipeline.execute(name, sink, values, TEXT_FORMAT);
  }
}

/** The new row, with what did not come taken from the old row if that came whole, or from the old key. */
function fillUnchanged(target: TargetRelation, { newTuple, oldTuple, oldKey }: Update): Tuple {
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

function checkWidth({ map }: TargetRelation, tuple: Tuple): void {
  if (tuple.length === map.columns.length) return;
  throw new MmliteError(
    "protocol",
    `Cannot apply a change to "${map.label}": it has ${tuple.length} columns, the relation ${map.columns.length}`,
  );
}

function valueOf({ map }: TargetRelation, tuple: Tuple, index: number): Uint8Array | null {
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

function identityDiffers({ map }: TargetRelation, sides: Sides): boolean {
  return map.columns.some(({ identityAlways, index }) =>
    identityAlways && !sameValue(sides.old![index], sides.new![index])
  );
}

function sameValue(a: Tuple[number], b: Tuple[number]): boolean {
  if (b.kind === "unchanged") return true;
  if (a.kind !== "text" || b.kind !== "text") return a.kind === b.kind;
  if (a.bytes.length !== b.bytes.length) return false;
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return false;
  return true;
}

function indexesOf(tuple: Tuple, kind: "null" | "unchanged"): ReadonlySet<number> {
  let found: Set<number> | undefined;
  for (let i = 0; i < tuple.length; i++) if (tuple[i].kind === kind) (found ??= new Set()).add(i);
  return found ?? NONE;
}

/** By row where there is no key, and where the old row came and the key alone may not tell which row it is. */
function matchShape({ map }: TargetRelation, { oldTuple, oldKey }: Update | Delete): MatchShape {
  if (map.key === null) return { byRow: true, nulls: indexesOf((oldTuple ?? oldKey)!, "null") };
  if (!map.key.deferrable || oldTuple === undefined) return BY_KEY;
  return { byRow: true, nulls: indexesOf(oldTuple, "null") };
}

function maskKey({ keyChanged, omitted, byRow, nulls }: UpdateShape): string {
  if (!keyChanged && omitted.size === 0 && !byRow) return "";
  return `${keyChanged ? "k" : ""}o${[...omitted].join(",")}${byRow ? "n" : ""}${[...nulls].join(",")}`;
}

function unmatchable({ map }: TargetRelation): MmliteError {
  return new MmliteError(
    "apply_failed",
    `Cannot apply a change to "${map.label}": the sender did not say which row`,
    { hint: "Give the table a primary key or REPLICA IDENTITY FULL on the node that sends" },
  );
}
