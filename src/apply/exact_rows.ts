/**
 * Writes rows of one table as another node has them, each in the version that it has there, without any of it being
 * sent on: for repairs, beside what is applied.
 *
 * Its session has a replication origin of its own, so no link has to rest for it; who wrote the rows is noted in
 * `mmlite.apply_group`, as for a group of transactions. A row is written only if the one here is still that which was
 * seen.
 */
import { Buffer } from "node:buffer";
import { backoffMs, delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { closeClient } from "../pg/client.ts";
import { describeServerError, mapPostgresError, sqlState } from "../pg/errors.ts";
import { Pipeline, type ReplySink } from "../pg/pipeline.ts";
import { queryWith } from "../pg/query.ts";
import { TEXT_FORMAT } from "../pg/query_bytes.ts";
import { keyParameters, type ScannedTable } from "../pg/scanned_table.ts";
import type { PostgresTarget } from "../pg/target.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { isNewer, parseVersion, type Version } from "../pg/whole_rows.ts";
import { formatTableName } from "../table_name.ts";
import { ExactStatements } from "./exact_statements.ts";
import { KeyHash, tableHash } from "./key_hash.ts";
import { RowTimes } from "./row_times.ts";
import { type ApplySession, openApplySession } from "./session.ts";

/** A row as another node has it. */
export interface ExactRow {
  /** Each value as hexadecimal digits, in the order of {@link ScannedTable.key}. */
  readonly key: readonly string[];
  /** Of the row here, as it was seen; null for none. */
  readonly stamp: number | null;
  /** Each value as hexadecimal digits, in the order of {@link ScannedTable.columns}; null if there is to be no row. */
  readonly values: readonly (string | null)[] | null;
  /** When it was written, or deleted; null where that is not known any more. */
  readonly version: Version | null;
}

/** What became of a row: written, left because it has changed here meanwhile, or refused and why. */
export type Outcome = "written" | "changed" | { readonly refused: string };

/** What {@link ExactRows.open} needs. */
export interface ExactRowsOptions {
  readonly target: PostgresTarget;
  /** This node's name. */
  readonly self: string;
  /** The replication origin, created and committed before. */
  readonly originName: string;
  /** Of whom rows count whose author is not known any more. */
  readonly source: string;
  readonly signal: AbortSignal;
}

/** Rows of one transaction: a moment's work, and little to do again. */
const BATCH_ROWS = 500;
/** Values of one statement, of which the protocol can count 65,535. */
const MAX_VALUES = 32_000;
/** Attempts at a batch that other sessions stand in the way of. */
const MAX_ATTEMPTS = 5;
const TRANSIENT = ["40001", "40P01", "55P03"];
/** Another row has what no two may have. */
const IN_THE_WAY = ["23505", "23P01"];
/** Classes of errors that are about a row: its values, constraints, what functions of users raise. */
const ROW_ERRORS = /^(2[2347]|44|P0)/;
/** Of a row whose time is not known, as a transaction cannot have none. */
const UNKNOWN_AT = 1n;

/** What a transaction came to; indexes are those of its rows. */
interface Attempt {
  readonly changed: readonly number[];
  /** Nothing was written because of these, which other rows here stand in the way of. */
  readonly refused: readonly number[];
}

/** See the module's head. {@link ExactRows.close} lets go of the database. */
export class ExactRows {
  readonly #options: ExactRowsOptions;
  readonly #session: ApplySession;
  readonly #pipeline: Pipeline;
  #failure: unknown;
  #statements: ExactStatements | undefined;
  #doing = "";
  /** What was noted of deleted rows before counts for what was seen. */
  #snapshot = "";
  readonly #stop = () => void closeClient(this.#session.client);

  private constructor(options: ExactRowsOptions, session: ApplySession) {
    this.#options = options;
    this.#session = session;
    this.#pipeline = new Pipeline(session.client, {
      failed: (error) => void (this.#failure = error),
      notice: () => {},
    });
    options.signal.addEventListener("abort", this.#stop, { once: true });
  }

  /** Opens the session. */
  static async open(options: ExactRowsOptions): Promise<ExactRows> {
    const { target, self, originName, signal } = options;
    const session = await openApplySession({ target, origin: `${self} (repair)`, originName, signal });
    // What is reported as repaired is on disk.
    await queryWith(session.client)("SET synchronous_commit = 'local'");
    return new ExactRows(options, session);
  }

  /** Lets go of the database. */
  async close(): Promise<void> {
    this.#options.signal.removeEventListener("abort", this.#stop);
    await closeClient(this.#session.client);
  }

  /** Before the table is looked at: what is written next is of it. */
  async begin(scanned: ScannedTable): Promise<void> {
    this.#doing = `repair table ${formatTableName(scanned.table)}`;
    this.#statements = new ExactStatements(scanned);
    const [[snapshot]] = await this.#mapping(() => this.#run("SELECT txid_current_snapshot()::text"));
    this.#snapshot = snapshot!;
  }

  /**
   * Writes rows. One that another row here stands in the way of is refused; with `alone` it is tried by itself, so that
   * it is said what by.
   */
  async write(rows: readonly ExactRow[], { alone = false }: { alone?: boolean } = {}): Promise<Outcome[]> {
    const outcomes = new Array<Outcome>(rows.length);
    await this.#mapping(async () => {
      for (const batch of this.#batches(rows, alone ? 1 : BATCH_ROWS)) {
        const found = await this.#writeBatch(batch.map((i) => rows[i]), { alone });
        batch.forEach((i, place) => outcomes[i] = found[place]);
      }
    });
    return outcomes;
  }

  async #mapping<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (thrown) {
      if (this.#options.signal.aborted) throw new MmliteError("aborted", `Cannot ${this.#doing}: stopped`);
      throw mapPostgresError(this.#failure ?? thrown, this.#doing);
    }
  }

  /** Rows (their index) of one author each, as a transaction has one; those that go first, which gives values free. */
  #batches(rows: readonly ExactRow[], limit: number): number[][] {
    const most = Math.max(1, Math.min(limit, Math.floor(MAX_VALUES / this.#made.columns)));
    const groups = Map.groupBy(rows.keys(), (i) => rows[i].values === null ? "" : this.#authorOf(rows[i]));
    const sorted = [...groups].sort(([one], [other]) => one < other ? -1 : 1);
    return sorted.flatMap(([, members]) =>
      Array.from(
        { length: Math.ceil(members.length / most) },
        (_, i) => members.slice(i * most, (i + 1) * most),
      )
    );
  }

  async #writeBatch(rows: readonly ExactRow[], { alone }: { alone: boolean }): Promise<Outcome[]> {
    const outcomes = new Array<Outcome>(rows.length).fill("written");
    let left = [...rows.keys()];
    let update = this.#made.mayUpdate && !alone;
    for (let attempts = 1; left.length > 0;) {
      const some = left.map((i) => rows[i]);
      try {
        const { changed, refused } = await this.#transact(some, { update, strict: alone });
        for (const i of changed) outcomes[left[i]] = "changed";
        for (const i of refused) outcomes[left[i]] = { refused: "other rows here have its values" };
        if (changed.length === 0 && refused.length === 0) break;
        left = left.filter((_, i) => !changed.includes(i) && !refused.includes(i));
      } catch (thrown) {
        const failure = this.#failure ?? thrown;
        const state = sqlState(failure) ?? "";
        if (this.#pipeline.isLost || this.#options.signal.aborted) throw failure;
        await this.#rollBack();
        if (TRANSIENT.includes(state) && attempts < MAX_ATTEMPTS) {
          await delay(backoffMs(attempts++), this.#options.signal);
          continue;
        }
        if (!ROW_ERRORS.test(state)) throw failure;
        if (update && IN_THE_WAY.includes(state)) {
          update = false;
          continue;
        }
        if (some.length === 1) return outcomes.with(left[0], { refused: describeServerError(failure) });
        // One of them.
        for (const i of left) [outcomes[i]] = await this.#writeBatch([rows[i]], { alone });
        break;
      }
    }
    return outcomes;
  }

  /**
   * Writes all of the rows, or none. What another session waits to write to is updated, so that it finds it; only where
   * rows stand in each other's way they all go before they come again, or two could not exchange their values.
   */
  async #transact(
    rows: readonly ExactRow[],
    { update, strict }: { update: boolean; strict: boolean },
  ): Promise<Attempt> {
    const isDelete = rows[0].values === null;
    await this.#run("BEGIN");
    const locked = await this.#lock(rows, isDelete);
    if (locked.changed.length > 0) return await this.#leave({ changed: locked.changed, refused: [] });
    const here = rows.filter(({ stamp }) => stamp !== null);
    const isUpdate = update && !isDelete;
    if (here.length > 0 && isUpdate) await this.#update(here);
    else if (here.length > 0) await this.#run(this.#made.remove, this.#keys(here));
    if (isDelete) await this.#noteDeleted(rows, locked.versions);
    else {
      const refused = await this.#insert(rows, {
        strict,
        isWanted: ({ stamp }) => stamp === null || !isUpdate,
      });
      if (refused.length > 0) return await this.#leave({ changed: [], refused });
      const gone = await this.#goneMeanwhile(rows);
      if (gone.length > 0) return await this.#leave({ changed: gone, refused: [] });
      await this.#noteVersions(rows);
    }
    await this.#run("COMMIT");
    return { changed: [], refused: [] };
  }

  async #leave(attempt: Attempt): Promise<Attempt> {
    await this.#run("ROLLBACK");
    return attempt;
  }

  /** Locks the rows that are here; which are not as they were seen, and what the versions of those that go are. */
  async #lock(rows: readonly ExactRow[], isDelete: boolean) {
    const stamps = new Map<number, number>();
    const versions = new Map<number, { readonly hash: bigint; readonly version: Version | null }>();
    const sql = isDelete ? this.#made.lockVersions : this.#made.lock;
    for (const [n, stamp, hash, version] of await this.#run(sql, this.#keys(rows))) {
      const i = Number(n) - 1;
      stamps.set(i, Number(stamp));
      if (isDelete) versions.set(i, { hash: BigInt(hash!), version: parseVersion(version) });
    }
    const changed = [...rows.keys()].filter((i) => (stamps.get(i) ?? null) !== rows[i].stamp);
    return { changed, versions };
  }

  async #update(rows: readonly ExactRow[]): Promise<void> {
    const values = rows.flatMap(({ values }) => values!.map(bytesOf));
    await this.#run(this.#made.update(rows.length), values, this.#made.types(rows.length));
  }

  /** Inserts the rows that are wanted; which of them could not be. */
  async #insert(
    rows: readonly ExactRow[],
    { strict, isWanted }: { strict: boolean; isWanted: (row: ExactRow) => boolean },
  ): Promise<number[]> {
    const wanted = [...rows.keys()].filter((i) => isWanted(rows[i]));
    if (wanted.length === 0) return [];
    const values = wanted.flatMap((i) => rows[i].values!.map(bytesOf));
    const sql = this.#made.insert(wanted.length, { strict });
    const inserted = await this.#run(sql, values, this.#made.types(wanted.length));
    if (inserted.length === wanted.length) return [];
    const keys = new Set(inserted.map((row) => JSON.stringify(this.#made.keyOf(row))));
    return wanted.filter((i) => !keys.has(JSON.stringify(rows[i].key)));
  }

  /** Which rows that were not here have been deleted since, by a transaction that found nothing to delete. */
  async #goneMeanwhile(rows: readonly ExactRow[]): Promise<number[]> {
    const missing = [...rows.keys()].filter((i) => rows[i].stamp === null);
    if (missing.length === 0) return [];
    const hashes = missing.map((i) => String(this.#hashOf(rows[i])));
    await this.#run(this.#made.awaitCommits);
    const snapshot = Buffer.from(this.#snapshot);
    const [[isAny]] = await this.#run(this.#made.anyGone, [arrayOf(hashes), snapshot]);
    if (isAny !== "true") return [];
    const gone = await this.#run(this.#made.gone, [arrayOf(hashes), snapshot]);
    const found = new Set(gone.map(([hash]) => hash));
    return missing.filter((_, i) => found.has(hashes[i]));
  }

  async #noteVersions(rows: readonly ExactRow[]): Promise<void> {
    const times = new RowTimes();
    const ats = rows.map(({ version }) => version?.at ?? UNKNOWN_AT);
    rows.forEach((row, i) => this.#add(times, this.#hashOf(row), i));
    const last = ats.reduce((one, other) => one > other ? one : other);
    const first = ats.reduce((one, other) => one < other ? one : other);
    await this.#run(this.#made.group, [
      ...[this.#authorOf(rows[0]), formatTimestamp(first), formatTimestamp(last)].map((one) =>
        Buffer.from(one)
      ),
      digitsOf(times.bytes(ats)),
    ]);
    await this.#run(this.#made.tag, [Buffer.from(formatTimestamp(last))]);
  }

  /** What is older than the row that goes, or than its delete at the source, comes to nothing. */
  async #noteDeleted(
    rows: readonly ExactRow[],
    here: ReadonlyMap<number, { readonly hash: bigint; readonly version: Version | null }>,
  ): Promise<void> {
    const deleted = [...here].flatMap(([i, { hash, version }]) => {
      const newest = isNewer(rows[i].version, version) ? rows[i].version : version;
      return newest === null ? [] : [{ hash, ...newest }];
    });
    for (const [node, some] of Map.groupBy(deleted, ({ node }) => node)) {
      const times = new RowTimes();
      some.forEach(({ hash }, i) => this.#add(times, hash, i));
      const ats = some.map(({ at }) => at);
      const last = ats.reduce((one, other) => one > other ? one : other);
      await this.#run(this.#made.tombstones, [
        ...[node, formatTimestamp(last)].map((one) => Buffer.from(one)),
        digitsOf(times.bytes(ats)),
      ]);
    }
    await this.#run(this.#made.tagNow);
  }

  #add(times: RowTimes, hash: bigint, transaction: number): void {
    times.add(Number(BigInt.asIntN(32, hash >> 32n)), Number(BigInt.asIntN(32, hash)), transaction);
  }

  /** Signed, as PostgreSQL has it. */
  #hashOf({ values }: ExactRow): bigint {
    const hash = new KeyHash();
    const { label, keyPlaces } = this.#made;
    hash.ofValues(tableHash(label), keyPlaces.map((place) => bytesOf(values![place])!));
    return (BigInt(hash.high) << 32n) | BigInt(hash.low >>> 0);
  }

  #authorOf({ version }: ExactRow): string {
    return version?.node ?? this.#options.source;
  }

  #keys(rows: readonly ExactRow[]): Uint8Array[] {
    return keyParameters(this.#made.scanned, rows.map(({ key }) => key)).map((text) => Buffer.from(text));
  }

  get #made(): ExactStatements {
    if (this.#statements !== undefined) return this.#statements;
    throw new MmliteError("internal", "Cannot write rows: no table was begun");
  }

  /** Runs a statement, with its parameters as text. */
  #run(
    sql: string,
    parameters: readonly (Uint8Array | null)[] = [],
    parameterTypes: readonly number[] = [],
  ): Promise<(string | null)[][]> {
    const rows: (string | null)[][] = [];
    return new Promise((resolve, reject) => {
      const sink: ReplySink = {
        doing: this.#doing,
        row: (values) => void rows.push([...values]),
        completed: () => resolve(rows),
        abandoned: reject,
      };
      this.#pipeline.prepare({ name: "", sql, parameterTypes });
      this.#pipeline.execute("", sink, parameters, TEXT_FORMAT);
      this.#pipeline.sync();
    });
  }

  async #rollBack(): Promise<void> {
    await this.#pipeline.recover();
    this.#failure = undefined;
    await this.#run("ROLLBACK");
  }
}

function bytesOf(digits: string | null): Buffer | null {
  return digits === null ? null : Buffer.from(digits, "hex");
}

/** The digits of some bytes, as a parameter of text. */
function digitsOf(bytes: Uint8Array): Buffer {
  return Buffer.from(Buffer.from(bytes).toString("hex"));
}

function arrayOf(numbers: readonly string[]): Buffer {
  return Buffer.from(`{${numbers.join(",")}}`);
}
