/**
 * Writes rows of this node as a peer has them, on behalf of a repair here or of one that the peer does: one at a time, as
 * they have one replication origin, which keeps them from being sent on.
 */
import { ExactRows } from "../apply/exact_rows.ts";
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { ensureNamedOrigin } from "../pg/progress.ts";
import type { ScannedTable } from "../pg/scanned_table.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { RowWriter, WantedRow, WriteOutcome } from "../verify/side.ts";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";

interface RowWritersOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly applied: Applied;
  /** Resolves once a table, by its OID, may have rows of other nodes, or throws. */
  readonly awaitTable: (oid: number) => Promise<void>;
  /** Throws `copying` while rows are copied to this node. */
  readonly requireWhole: () => void;
}

/** Another repair is waited for so long, milliseconds: one whose node is gone lets go in that time, one that works does not. */
const TURN_WAIT_MS = 10_000;

/** See the module's head. */
export class RowWriters {
  readonly #options: RowWritersOptions;
  #underWay: { readonly source: string; readonly ended: Promise<void> } | undefined;

  constructor(options: RowWritersOptions) {
    this.#options = options;
  }

  /** Throws `server_setting` where rows have no versions here. */
  requireVersions(): void {
    const { self, database } = this.#options;
    if (database.facts.trackCommitTimestamp) return;
    throw new MmliteError(
      "server_setting",
      `Cannot tell the newer one of two rows: track_commit_timestamp is off on node "${self}"`,
      {
        hint: "Set track_commit_timestamp = on and restart PostgreSQL, or repair by one node: --source NAME",
      },
    );
  }

  /**
   * One for rows that `source` has: it opens nothing before it is given a table, and throws `transient` then while
   * another one goes on. With `newest` rows have to have versions.
   */
  writer(
    source: string,
    { tableOf, newest, signal }: {
      readonly tableOf: (table: TableName) => ScannedTable | undefined;
      readonly newest: boolean;
      readonly signal: AbortSignal;
    },
  ): TableWriter {
    return new TableWriter({
      tableOf,
      awaitTable: this.#options.awaitTable,
      open: () => {
        if (newest) this.requireVersions();
        return this.#open(source, signal);
      },
    });
  }

  async #open(source: string, signal: AbortSignal): Promise<OpenRows> {
    const { database, self, applied, requireWhole } = this.#options;
    requireWhole();
    const late = AbortSignal.any([AbortSignal.timeout(TURN_WAIT_MS), signal]);
    while (this.#underWay !== undefined) {
      if (late.aborted) throw this.#occupied(this.#underWay.source, signal);
      await Promise.race([this.#underWay.ended, delay(TURN_WAIT_MS, late)]);
    }
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    this.#underWay = { source, ended };
    const release = () => {
      this.#underWay = undefined;
      end();
    };
    try {
      // One of its own: that of a peer belongs to the session that applies what it sends.
      const originName = `mmlite:${self}:repair`;
      await ensureNamedOrigin(database.control.query("make the origin of repairs"), originName);
      const rows = await ExactRows.open({ target: database.target, self, originName, source, signal });
      applied.add({ failed: ended, isBusy: true });
      return { rows, close: () => rows.close().finally(release) };
    } catch (thrown) {
      release();
      throw thrown;
    }
  }

  #occupied(source: string, { aborted }: AbortSignal): MmliteError {
    if (aborted) return new MmliteError("aborted", "Cannot repair rows: stopped");
    return new MmliteError(
      "transient",
      `Cannot repair rows of node "${this.#options.self}": another repair, with "${source}", is under way there`,
      { hint: "Try again when that has ended" },
    );
  }
}

interface OpenRows {
  readonly rows: ExactRows;
  readonly close: () => Promise<void>;
}

interface TableWriterOptions extends Pick<RowWritersOptions, "awaitTable"> {
  readonly tableOf: (table: TableName) => ScannedTable | undefined;
  readonly open: () => Promise<OpenRows>;
}

/** See {@link RowWriters.writer}. */
export class TableWriter implements RowWriter, AsyncDisposable {
  readonly #options: TableWriterOptions;
  #opened: OpenRows | undefined;

  constructor(options: TableWriterOptions) {
    this.#options = options;
  }

  /** Throws `protocol` for a table that was not listed, and `transient` for a new one that is not published yet. */
  async begin(table: TableName): Promise<void> {
    const scanned = this.#options.tableOf(table);
    if (scanned === undefined || scanned.key.length === 0) {
      throw new MmliteError(
        "protocol",
        `Cannot write rows of ${formatTableName(table)}: it was not listed, or has no key`,
      );
    }
    await this.#options.awaitTable(scanned.table.oid);
    this.#opened ??= await this.#options.open();
    await this.#opened.rows.begin(scanned);
  }

  /** Rows of the table that was begun last. */
  async write(rows: readonly WantedRow[], options?: { readonly alone?: boolean }): Promise<WriteOutcome[]> {
    if (this.#opened !== undefined) return await this.#opened.rows.write(rows, options);
    throw new MmliteError("protocol", "Cannot write rows: no table was named");
  }

  /** Lets go of the database. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await opened?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
