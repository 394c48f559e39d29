/**
 * Turns one row change into runs of prepared statements. Values stay the bytes that came.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import type { Pipeline } from "../pg/pipeline.ts";
import { TEXT_FORMAT } from "../pg/query_bytes.ts";
import type { Delete, Tuple, Update } from "../pgoutput/message.ts";
import { KeyHash } from "./key_hash.ts";
import type { MappedRelation } from "./relation_map.ts";
import type { StatementCache } from "./statement_cache.ts";
import { type ExclusionShape, exclusionStatement } from "./exclusion_statements.ts";
import { answeredStatement, fetchedStatement } from "./fetched_statements.ts";
import { type GoneRow, GoneRows } from "./gone_rows.ts";
import { keepGoneStatement, keptStillGoneStatement, stillGoneStatement } from "./gone_statements.ts";
import { evictStatement, insertMovedStatement, removeUnmovedStatement } from "./key_change_statements.ts";
import type { RowChange } from "./row_change.ts";
import { type MatchShape, type StatementShape, type UpdateShape, VERSION_PART } from "./sql_text.ts";
import {
  deleteStatement,
  insertStatement,
  replaceStatement,
  truncateStatement,
  updateStatement,
} from "./statements.ts";
import {
  lockStatement,
  mayComeLate,
  mayHaveTwins,
  missedStatement,
  othersStatement,
  removeOlderKeptStatement,
  removeOlderStatement,
  twinStatement,
} from "./second_look_statements.ts";
import type { TargetRelation } from "./target_relation.ts";
import {
  checkWidth,
  fillUnchanged,
  indexesOf,
  isLong,
  keyValues,
  onlyKey,
  sameValue,
  valueOf,
} from "./tuples.ts";
import { type PossibleTwin, Twins } from "./twins.ts";
import type { Versions } from "./versions.ts";

/** The tuples of a change, by the side that parameters name. */
interface Sides {
  readonly old: Tuple | undefined;
  readonly new: Tuple | undefined;
}

/** What {@link deleteStatement} answers where there was a row. */
const FOUND_TAG = "SELECT 0";
const NONE: ReadonlySet<number> = new Set();
const BY_KEY: MatchShape = { byRow: false, nulls: NONE };

/** Writes changes to a pipeline. */
export class ChangeWriter {
  readonly #pipeline: Pipeline;
  readonly #cache: StatementCache;
  readonly #versions: Versions;
  readonly #hash = new KeyHash();
  #transaction = 0;
  /** Rows that were deleted one by one, to be looked for again. */
  readonly gone: GoneRows;
  /** Rows that were written under keys that PostgreSQL does not watch over here. */
  readonly twins: Twins;

  constructor(
    { pipeline, cache, versions }: { pipeline: Pipeline; cache: StatementCache; versions: Versions },
  ) {
    this.#pipeline = pipeline;
    this.#cache = cache;
    this.#versions = versions;
    this.gone = new GoneRows({
      keep: (row) => this.#lookFor(row, "gk", keepGoneStatement),
      // Where several rows may have a key, writing them again might leave the same.
      lookFor: (row) =>
        this.#lookFor(row, "g", mayHaveTwins(row.target.map) ? removeOlderStatement : stillGoneStatement),
      lookForKept: (target, transaction) =>
        this.#lookFor(
          { target, old: [], transaction },
          "ga",
          mayHaveTwins(target.map) ? removeOlderKeptStatement : keptStillGoneStatement,
        ),
    });
    this.twins = new Twins({
      lookForOthers: (target) =>
        this.#run(target, "o", () => othersStatement(target.map), { old: undefined, new: undefined }),
      settle: (row) => this.#settleTwins(row, { later: false }),
      leave: (row) => this.#settleTwins(row, { later: true }),
    });
  }

  /** Writes the statements of one row change of the transaction with that number. */
  write(target: TargetRelation, change: RowChange, transaction: number): void {
    this.#transaction = transaction;
    switch (change.kind) {
      case "insert":
        return this.#insert(target, change.newTuple);
      case "update":
        return this.#update(target, change);
      case "delete":
        return this.#delete(target, change);
    }
  }

  /** Writes a row that was fetched whole from the sender, in the version of the transaction with that number. */
  writeFetched(target: TargetRelation, tuple: Tuple, transaction: number): void {
    this.#transaction = transaction;
    checkWidth(target, tuple);
    this.#notePut(target, "update", { tuple });
    const sides = { old: undefined, new: tuple };
    this.#exclude(target, { change: "update", keyChanged: false, omitted: NONE }, sides);
    this.#run(target, "a", () => answeredStatement(target.map), sides);
    this.#run(target, "f", () => fetchedStatement(target.map), sides);
  }

  /** Forgets what is not committed. */
  clear(): void {
    this.gone.clear();
    this.twins.clear();
  }

  /** Truncates tables in one statement. */
  truncate(
    targets: readonly TargetRelation[],
    { restartIdentity, transaction }: { restartIdentity: boolean; transaction: number },
  ): void {
    this.#transaction = transaction;
    const shape = truncateStatement(targets.map((target) => target.map), restartIdentity);
    this.#pipeline.prepare({ name: "", sql: shape.sql, parameterTypes: shape.parameterTypes });
    const values = shape.parameters.map(({ index }) => this.#versionPart(index));
    this.#pipeline.execute("", { doing: shape.doing, completed: () => {} }, values, TEXT_FORMAT);
  }

  #insert(target: TargetRelation, newTuple: Tuple): void {
    checkWidth(target, newTuple);
    this.#notePut(target, "insert", { tuple: newTuple });
    const sides = { old: undefined, new: newTuple };
    this.#exclude(target, { change: "insert", keyChanged: false, omitted: NONE }, sides);
    if (target.looseIdentity && target.map.key !== null) {
      const shape = { keyChanged: false, omitted: NONE, byRow: false, nulls: NONE, long: false };
      this.#run(target, "r", () => replaceStatement(target.map, shape), sides);
    }
    const long = isLong(target, newTuple);
    this.#run(target, long ? "il" : "i", () => insertStatement(target.map, { long }), sides);
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
    const long = isLong(target, tuple);
    const shape: UpdateShape = { keyChanged, omitted, long, ...matchShape(target, change) };
    const mask = maskKey(shape);
    const columns = `${long ? "l" : ""}${[...omitted].join(",")}`;
    if (keyChanged) this.#noteDeleted(target, old);
    if (keyChanged && mayComeLate(map)) this.#run(target, "k", () => missedStatement(map), sides);
    this.#notePut(target, "update", { tuple, before: old });
    this.#exclude(target, { change: "update", keyChanged, omitted }, sides);
    this.#lock(target, shape, sides);
    // Under a deferrable key the row in the way may be one that this transaction moves away in a moment.
    const isFirm = keyChanged && !map.key!.deferrable;
    if (isFirm) this.#run(target, `e${columns}`, () => evictStatement(map, shape), sides);
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
    if (!isFirm || !rest.keyChanged || !map.settlement.versioned) return;
    this.#run(target, `m${columns}`, () => removeUnmovedStatement(map, rest), sides);
    this.#run(target, `n${columns}`, () => insertMovedStatement(map, rest), sides);
  }

  #delete(target: TargetRelation, change: Delete): void {
    const old = change.oldTuple ?? change.oldKey;
    if (old === undefined) throw unmatchable(target);
    checkWidth(target, old);
    const gone = this.#noteDeleted(target, old);
    const match = matchShape(target, change);
    const sides = { old, new: undefined };
    this.#lock(target, match, sides);
    const build = () => deleteStatement(target.map, match);
    const key = match.byRow ? `d${[...match.nulls].join(",")}` : "d";
    // Under a deferrable key others may write beside what is not committed.
    const found = gone === undefined || target.map.key!.deferrable ? undefined : (tag: string) => {
      if (tag === FOUND_TAG) this.gone.found(gone);
    };
    this.#run(target, key, build, sides, found);
  }

  /** Where a row is chosen among those with its key, that is not done again if another session changes it. */
  #lock(target: TargetRelation, { byRow }: MatchShape, sides: Sides): void {
    if (byRow && target.map.key !== null) this.#run(target, "l", () => lockStatement(target.map), sides);
  }

  #lookFor(
    { target, old, transaction }: GoneRow,
    key: string,
    statement: (relation: MappedRelation) => StatementShape,
  ): void {
    this.#transaction = transaction;
    this.#run(target, key, () => statement(target.map), { old, new: undefined });
  }

  #settleTwins({ target, change, key, transaction }: PossibleTwin, { later }: { later: boolean }): void {
    this.#transaction = transaction;
    const build = () => twinStatement(target.map, { change, later });
    this.#run(target, `t${later ? "l" : ""}${change}`, build, { old: undefined, new: key });
  }

  #run(
    target: TargetRelation,
    key: string,
    build: () => StatementShape,
    sides: Sides,
    completed?: (tag: string) => void,
  ): void {
    const { name, shape, sink } = this.#cache.get(target.statements, key, build);
    const values: (Uint8Array | null)[] = [];
    for (const { side, index } of shape.parameters) {
      values.push(
        side === "version" ? this.#versionOf(target, sides, index) : valueOf(target, sides[side]!, index),
      );
    }
    this.#pipeline.execute(name, completed ? { doing: sink.doing, completed } : sink, values, TEXT_FORMAT);
  }

  #versionOf(target: TargetRelation, sides: Sides, part: number): Uint8Array {
    switch (part) {
      case VERSION_PART.newHash:
        return this.#hashText(target, sides.new!, sides.old);
      case VERSION_PART.oldHash:
        return this.#hashText(target, sides.old!);
      default:
        return this.#versionPart(part);
    }
  }

  #versionPart(part: number): Uint8Array {
    const { at, node, seen } = this.#versions.of(this.#transaction);
    return part === VERSION_PART.at ? at : part === VERSION_PART.node ? node : seen;
  }

  /** Makes room for the new row beside those that it may not stand beside. */
  #exclude(
    target: TargetRelation,
    shape: ExclusionShape,
    sides: Sides,
  ): void {
    const { map } = target;
    if (map.key === null || !map.settlement.versioned || map.exclusions.length === 0) return;
    const key = `x${shape.change}${shape.keyChanged ? "k" : ""}${[...shape.omitted].join(",")}`;
    this.#run(target, key, () => exclusionStatement(map, shape), sides);
  }

  #notePut(
    target: TargetRelation,
    change: PossibleTwin["change"],
    { tuple, before }: { tuple: Tuple; before?: Tuple },
  ): void {
    if (target.map.key === null || !target.map.settlement.versioned) return;
    this.#hashKey(target, tuple, before);
    this.#versions.put.add(this.#hash.high, this.#hash.low, this.#transaction);
    if (!mayHaveTwins(target.map)) return;
    this.twins.add({ target, change, key: onlyKey(target, tuple), transaction: this.#transaction });
  }

  /** Undefined where nothing is noted. */
  #noteDeleted(target: TargetRelation, old: Tuple): GoneRow | undefined {
    if (target.map.key === null || !target.map.settlement.versioned) return;
    this.#hashKey(target, old);
    this.#versions.deleted.add(this.#hash.high, this.#hash.low, this.#transaction);
    const gone = { target, old: onlyKey(target, old), transaction: this.#transaction };
    this.gone.add(gone);
    return gone;
  }

  #hashText(target: TargetRelation, tuple: Tuple, before?: Tuple): Uint8Array {
    this.#hashKey(target, tuple, before);
    const { high, low } = this.#hash;
    return Buffer.from(String((BigInt(high) << 32n) | BigInt(low >>> 0)), "latin1");
  }

  #hashKey(target: TargetRelation, tuple: Tuple, before?: Tuple): void {
    const key = target.map.key!.columns.map(({ index }) => index);
    this.#hash.ofValues(target.hash, keyValues(tuple, key, before));
  }
}

function identityDiffers({ map }: TargetRelation, sides: Sides): boolean {
  return map.columns.some(({ identityAlways, index }) =>
    identityAlways && !sameValue(sides.old![index], sides.new![index])
  );
}

/** By row where there is no key, and where the old row came and the key alone may not tell which row it is. */
function matchShape({ map }: TargetRelation, { oldTuple, oldKey }: Update | Delete): MatchShape {
  if (map.key === null) return { byRow: true, nulls: indexesOf((oldTuple ?? oldKey)!, "null") };
  if (!map.key.deferrable || oldTuple === undefined) return BY_KEY;
  return { byRow: true, nulls: indexesOf(oldTuple, "null") };
}

function maskKey({ keyChanged, omitted, byRow, nulls, long }: UpdateShape): string {
  if (!keyChanged && omitted.size === 0 && !byRow) return long ? "l" : "";
  return `${long ? "l" : ""}${keyChanged ? "k" : ""}o${[...omitted].join(",")}${byRow ? "n" : ""}${
    [...nulls].join(",")
  }`;
}

function unmatchable({ map }: TargetRelation): MmliteError {
  return new MmliteError(
    "apply_failed",
    `Cannot apply a change to "${map.label}": the sender did not say which row`,
    { hint: "Give the table a primary key or REPLICA IDENTITY FULL on the node that sends" },
  );
}
