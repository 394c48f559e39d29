/**
 * Writes the changes of whole transactions as statements over many rows: COPY, and UPDATE and DELETE by arrays.
 *
 * Several changes of a row become one. What cannot be taken together, or not by sets, is written in its turn after
 * what it follows; relations do not see each other's changes, so only the order within each is kept.
 */
import type { Pipeline } from "../pg/pipeline.ts";
import { MESSAGE_TYPE } from "../pgoutput/peek.ts";
import { decodeError } from "../pgoutput/reader.ts";
import { textMessage } from "../pgoutput/text_form.ts";
import { TupleScan, UNCHANGED_LENGTH } from "../pgoutput/tuple_scan.ts";
import { ArrayParameters, maxRows } from "./array_parameters.ts";
import type { ChangeWriter } from "./change_writer.ts";
import { CopyBinary } from "./copy_binary.ts";
import { CopyText } from "./copy_text.ts";
import { KeyHash } from "./key_hash.ts";
import { NET_DELETE, NET_INSERT, NET_UPDATE, NetChanges, type PlacedChange } from "./net_changes.ts";
import { decodeChange } from "./row_change.ts";
import {
  copyStatement,
  deleteSetStatement,
  requireTableStatement,
  setsColumns,
  updateSetStatement,
} from "./set_statements.ts";
import type { StatementCache } from "./statement_cache.ts";
import type { TargetRelation } from "./target_relation.ts";
import { keyValues } from "./tuples.ts";
import type { Versions } from "./versions.ts";

/**
 * Rows that wait to be written, at most; and their bytes, the last row on top. COPY makes a thousand slots for rows that
 * all note the same in one list of the server's, which took an eighth of its time at four thousand rows for each COPY.
 */
const MAX_ROWS = 16_384;
const MAX_BYTES = 0x10_0000;
/** A row of more bytes is written by itself, as the bytes that came. */
const LARGE_ROW_BYTES = 0x2000;
/** Fewer rows than this cost less one by one. */
const MIN_SET_ROWS = 4;
const MIN_COPY_ROWS = 8;
/** Sets kept for the next ones: most loads change a few relations again and again. */
const MAX_SPARE = 16;

const NEW_TUPLE = 0x4e; // N
const OLD_TUPLE = 0x4f; // O
const NONE: ReadonlySet<number> = new Set();
/** Type, relation and marker of a row change. */
const CHANGE_HEADER_BYTES = 6;

/** The part of a target that sets need, made once. */
interface KeyedTarget {
  readonly key: readonly number[];
  /** Whether an UPDATE has anything to set. */
  readonly settable: boolean;
}

/** See the module's head. */
export class SetWriter {
  readonly #pipeline: Pipeline;
  readonly #cache: StatementCache;
  readonly #changes: ChangeWriter;
  readonly #keyed = new WeakMap<TargetRelation, KeyedTarget>();
  readonly #pending = new Map<TargetRelation, NetChanges>();
  readonly #spare: NetChanges[] = [];
  readonly #scan = new TupleScan();
  readonly #other = new TupleScan();
  readonly #hash = new KeyHash();
  readonly #arrays = new ArrayParameters(this.#other);
  readonly #copyText = new CopyText();
  readonly #copyBinary = new CopyBinary();
  readonly #placed: PlacedChange;
  #rows = 0;
  #bytes = 0;
  readonly #versions: Versions;
  #notesWritten = false;

  constructor(
    { pipeline, cache, changes, versions }: {
      pipeline: Pipeline;
      cache: StatementCache;
      changes: ChangeWriter;
      versions: Versions;
    },
  ) {
    this.#versions = versions;
    this.#pipeline = pipeline;
    this.#cache = cache;
    this.#changes = changes;
    const bytes = new Uint8Array();
    this.#placed = {
      kind: NET_INSERT,
      bytes,
      start: 0,
      end: 0,
      tuple: 0,
      hasUnchanged: false,
      transaction: 0,
    };
  }

  /** Begins what is to be written together; `notesWritten` if its rows have versions of several times. */
  begin(notesWritten: boolean): void {
    this.#notesWritten = notesWritten;
  }

  /** Takes a row change of the transaction with that number, which lies from `start` to `end` in `bytes`. */
  write(target: TargetRelation, bytes: Uint8Array, { start, end, transaction }: {
    start: number;
    end: number;
    transaction: number;
  }): void {
    if (!this.#pending.has(target)) this.flushTable(target);
    const placed = this.#placed;
    placed.bytes = bytes;
    placed.start = start;
    placed.end = end;
    placed.transaction = transaction;
    const fits = this.#place(target, placed);
    const { map } = target;
    const { byteLength, hasBinary, hasText } = this.#scan;
    if (!fits || byteLength > LARGE_ROW_BYTES) return this.#writeAlone(target, placed);
    if (hasBinary && (hasText || !map.bySetsInBinary)) {
      const text = textMessage(bytes.subarray(start, end), map.sentTypes);
      return this.write(target, text, { start: 0, end: text.length, transaction });
    }
    this.#add(target, placed);
    this.#bytes += end - start;
    if (++this.#rows >= MAX_ROWS || this.#bytes >= MAX_BYTES) this.flush();
  }

  /** Writes what waits. */
  flush(): void {
    for (const [target, changes] of this.#pending) this.#writeChanges(target, changes);
    this.#pending.clear();
    this.#rows = 0;
    this.#bytes = 0;
  }

  /** Writes what waits of a target's table: a relation that was announced anew has another target of the same. */
  flushTable({ map: { label } }: TargetRelation): void {
    for (const target of this.#pending.keys()) if (target.map.label === label) this.#writeTarget(target);
  }

  /** Forgets what waits: it will not be written. */
  clear(): void {
    this.#pending.clear();
    this.#rows = 0;
    this.#bytes = 0;
  }

  /** Scans the change; false if it is none that sets can take. */
  #place({ map }: TargetRelation, placed: PlacedChange): boolean {
    const { bytes, start, end } = placed;
    if (end - start < CHANGE_HEADER_BYTES) {
      throw decodeError(bytes.subarray(start, end), end - start, "it is cut off");
    }
    const marker = bytes[start + 5];
    placed.tuple = start + CHANGE_HEADER_BYTES;
    switch (bytes[start]) {
      case MESSAGE_TYPE.insert:
        placed.kind = NET_INSERT;
        if (marker !== NEW_TUPLE) return false;
        break;
      case MESSAGE_TYPE.update:
        placed.kind = NET_UPDATE;
        if (marker === OLD_TUPLE) return this.#placeWithOld(map, placed);
        // With a key before it, that is what changes.
        if (marker !== NEW_TUPLE) return false;
        break;
      default:
        placed.kind = NET_DELETE;
    }
    const stop = this.#scan.scan(bytes, placed.tuple, placed);
    placed.hasUnchanged = this.#scan.hasUnchanged;
    return stop === end && this.#scan.count === map.columns.length;
  }

  /** An update that came with the whole old row: by sets if the key stays and the new row is whole. */
  #placeWithOld(map: TargetRelation["map"], placed: PlacedChange): boolean {
    const { bytes, end } = placed;
    const old = this.#other;
    const stop = old.scan(bytes, placed.tuple, placed);
    if (stop >= end || bytes[stop] !== NEW_TUPLE || map.key === null) return false;
    placed.tuple = stop + 1;
    const scan = this.#scan;
    if (scan.scan(bytes, placed.tuple, placed) !== end) return false;
    placed.hasUnchanged = scan.hasUnchanged;
    if (scan.hasUnchanged || scan.count !== map.columns.length || old.count !== scan.count) return false;
    return map.key.columns.every(({ index }) => {
      const length = scan.lengths[index];
      if (length !== old.lengths[index]) return false;
      for (let i = 0; i < length; i++) {
        if (bytes[scan.starts[index] + i] !== bytes[old.starts[index] + i]) return false;
      }
      return true;
    });
  }

  #add(target: TargetRelation, placed: PlacedChange): void {
    const { key, settable } = this.#keyedOf(target);
    const isKeyless = key.length === 0;
    const isInsert = placed.kind === NET_INSERT;
    if (
      (isKeyless && !isInsert) || (isInsert && placed.hasUnchanged) ||
      (placed.kind === NET_UPDATE && !settable) ||
      key.some((index) => this.#scan.lengths[index] < 0)
    ) {
      return this.#writeAlone(target, placed);
    }
    const changes = this.#pendingOf(target, key);
    if (isKeyless) return changes.append(placed);
    this.#hash.ofRow(target, { bytes: placed.bytes, scan: this.#scan, key });
    const row = { hash: this.#hash, scan: this.#scan };
    if (changes.add(placed, row)) return;
    this.#writeTarget(target);
    this.#pendingOf(target, key).add(placed, row);
  }

  #keyedOf(target: TargetRelation): KeyedTarget {
    let keyed = this.#keyed.get(target);
    if (keyed === undefined) {
      const { map } = target;
      const key = map.key?.columns.map(({ index }) => index) ?? [];
      keyed = { key, settable: map.key !== null && setsColumns(map, NONE) };
      this.#keyed.set(target, keyed);
    }
    return keyed;
  }

  #pendingOf(target: TargetRelation, key: readonly number[]): NetChanges {
    const isBinary = this.#scan.hasBinary;
    let changes = this.#pending.get(target);
    if (changes !== undefined && changes.isBinary !== isBinary) {
      this.#writeTarget(target);
      changes = undefined;
    }
    if (changes === undefined) {
      changes = this.#spare.pop() ?? new NetChanges(this.#other);
      changes.begin(key, { isBinary });
      this.#pending.set(target, changes);
    }
    return changes;
  }

  /** Writes a change as a statement of its own, after what waits of its relation. */
  #writeAlone(target: TargetRelation, { bytes, start, end, transaction }: PlacedChange): void {
    this.#writeTarget(target);
    const change = decodeChange(target, bytes.subarray(start, end));
    this.#changes.write(target, change, transaction);
    if (!this.#notesWritten || change.kind === "delete" || target.map.key === null) return;
    const before = change.kind === "update" ? change.oldTuple ?? change.oldKey : undefined;
    this.#hash.ofValues(target.hash, keyValues(change.newTuple, this.#keyedOf(target).key, before));
    this.#versions.written.add(this.#hash.high, this.#hash.low, transaction);
  }

  #writeTarget(target: TargetRelation): void {
    const changes = this.#pending.get(target);
    if (changes === undefined) return;
    this.#pending.delete(target);
    this.#writeChanges(target, changes);
  }

  /** Deletes first and inserts last, so that what other unique keys give free can be taken. */
  #writeChanges(target: TargetRelation, changes: NetChanges): void {
    const inserts: number[] = [];
    const deletes: number[] = [];
    const { isBinary } = changes;
    const form = isBinary ? "b" : "t";
    const updates = new Map<string, number[]>();
    for (let row = 0; row < changes.count; row++) {
      const kind = changes.kinds[row];
      if (kind === NET_INSERT) inserts.push(row);
      else if (kind === NET_DELETE) deletes.push(row);
      else this.#sortUpdate(updates, changes, row);
    }
    this.#writeSet(target, {
      changes,
      rows: deletes,
      key: `sd${form}`,
      build: () => deleteSetStatement(target.map, { isBinary }),
    });
    for (const [omitted, rows] of updates) {
      const build = () => updateSetStatement(target.map, { omitted: parseOmitted(omitted), isBinary });
      this.#writeSet(target, { changes, rows, key: `su${form}${omitted}`, build });
    }
    this.#writeInserts(target, changes, inserts);
    if (target.map.key !== null) this.#note(target, changes);
    if (this.#spare.length === MAX_SPARE) return;
    changes.clear();
    this.#spare.push(changes);
  }

  /** By the columns that did not come: each set of them is a statement. */
  #sortUpdate(updates: Map<string, number[]>, changes: NetChanges, row: number): void {
    let omitted = "";
    if (changes.unchanged[row]) {
      const scan = this.#other;
      const { bytes, tuples, starts, ends } = changes;
      scan.scan(bytes[row], tuples[row], { start: starts[row], end: ends[row] });
      const missing: number[] = [];
      for (let i = 0; i < scan.count; i++) if (scan.lengths[i] === UNCHANGED_LENGTH) missing.push(i);
      omitted = missing.join(",");
    }
    const rows = updates.get(omitted);
    if (rows === undefined) updates.set(omitted, [row]);
    else rows.push(row);
  }

  #writeSet(target: TargetRelation, { changes, rows, key, build }: {
    changes: NetChanges;
    rows: readonly number[];
    key: string;
    build: () => ReturnType<typeof copyStatement>;
  }): void {
    if (rows.length < MIN_SET_ROWS) return this.#writeOneByOne(target, changes, rows);
    const statement = this.#cache.get(target.statements, key, build);
    const columns = statement.shape.parameters.map(({ index }) => index);
    const types = columns.map((index) => target.map.sentTypes[index]);
    const step = maxRows(columns.length);
    for (let from = 0; from < rows.length; from += step) {
      const part = rows.slice(from, from + step);
      this.#arrays.prepare(changes, { rows: part, columns, types, time: this.#versions.bound });
      this.#pipeline.executeWith(statement.name, statement.sink, this.#arrays);
    }
  }

  #writeInserts(target: TargetRelation, changes: NetChanges, rows: readonly number[]): void {
    if (rows.length < MIN_COPY_ROWS) return this.#writeOneByOne(target, changes, rows);
    const { map, statements } = target;
    const { bytes, tuples, starts, ends, isBinary } = changes;
    if (map.key !== null || isBinary) {
      const require = () => requireTableStatement(map, { isBinary });
      const guard = this.#cache.get(statements, isBinary ? "skb" : "skt", require);
      this.#pipeline.execute(guard.name, guard.sink);
    }
    if (map.key !== null && map.settlement.versioned) this.#notePut(changes, rows);
    const build = () => copyStatement(map, { isBinary });
    const { name, sink, shape } = this.#cache.get(statements, isBinary ? "scb" : "sct", build);
    const columns = shape.parameters.map(({ index }) => index);
    const copy = isBinary ? this.#copyBinary : this.#copyText;
    this.#pipeline.copyIn(name, sink, (send) => {
      copy.begin(send);
      for (const row of rows) {
        this.#other.scan(bytes[row], tuples[row], { start: starts[row], end: ends[row] });
        copy.row(bytes[row], this.#other, columns);
      }
      copy.finish();
    });
  }

  /** That none of them was deleted later is looked at in the end. */
  #notePut({ highs, lows }: NetChanges, rows: readonly number[]): void {
    const { put } = this.#versions;
    for (const row of rows) put.add(highs[row], lows[row], 0);
  }

  #writeOneByOne(
    target: TargetRelation,
    { bytes, starts, ends, kinds, transactions }: NetChanges,
    rows: readonly number[],
  ): void {
    for (const row of rows) {
      const change = decodeChange(target, bytes[row].subarray(starts[row], ends[row]));
      // An update of a row that was inserted before it, both not written yet, is the insert of what it made.
      const isInsert = kinds[row] === NET_INSERT && change.kind === "update";
      this.#changes.write(target, isInsert ? { ...change, kind: "insert" } : change, transactions[row]);
    }
  }

  #note({ map }: TargetRelation, { count, kinds, highs, lows, transactions }: NetChanges): void {
    const { written, deleted } = this.#versions;
    for (let row = 0; row < count; row++) {
      if (kinds[row] !== NET_DELETE) {
        if (this.#notesWritten) written.add(highs[row], lows[row], transactions[row]);
      } else if (map.settlement.versioned) {
        deleted.add(highs[row], lows[row], transactions[row]);
      }
    }
  }
}

function parseOmitted(text: string): ReadonlySet<number> {
  return text === "" ? NONE : new Set(text.split(",").map(Number));
}
