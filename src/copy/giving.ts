/**
 * Gives this node's rows, as of one snapshot, to a node that they are copied to.
 *
 * The snapshot has to hold all that the other node will never be sent: what was committed on third nodes before that
 * node's slots there begin is applied here first, and transactions that ran here when its own slot was made have ended.
 * What it holds beyond that the other node is told, and is not sent again. The order of the steps is the argument of
 * `docs/GUARANTEES.md`, "A node that joins".
 */
import { randomUUID } from "node:crypto";
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { mapPostgresError } from "../pg/errors.ts";
import { type CopiedNote, LATER_NOTES, readNotes } from "../pg/copy_notes.ts";
import type { CopiedTable } from "../pg/copy_reader.ts";
import { CopySource, readOldestRunning, type SnapshotFacts, takeTransactionId } from "../pg/copy_source.ts";
import { setMark } from "../pg/marks.ts";
import { type Query, queryWith } from "../pg/query.ts";
import type { LocalTable } from "../pg/tables.ts";
import type { PostgresTarget } from "../pg/target.ts";
import { formatTableName, tableKey } from "../table_name.ts";
import type { Channel } from "../wire/channel.ts";
import { Lines } from "../wire/lines.ts";
import { isSameInBinary } from "./binary_types.ts";
import { type DescribedTable, GivenRows } from "./given_rows.ts";
import { type CopyRequest, type MoreRequest, parseRequest } from "./messages.ts";

/** What is taken away meanwhile, see `apply/removals.ts`. */
interface RemovalWatch {
  removed(): { readonly notes: readonly CopiedNote[]; readonly since: readonly string[] };
  stop(): void;
}

/** What giving needs of the rest of the node. */
export interface GivingPorts {
  readonly target: PostgresTarget;
  readonly query: Query;
  /** This node's name, and that of the one that asks. */
  readonly self: string;
  readonly peer: string;
  readonly serverVersion: number;
  readonly isVersioned: boolean;
  /** Throws where the peer gets nothing, or not now. */
  readonly requireAllowed: () => Promise<void>;
  readonly readTables: (query: Query) => Promise<LocalTable[]>;
  /** Resolves once a table is published; throws `transient` while it cannot be: what is deleted of it is not sent yet. */
  readonly awaitTable: (table: LocalTable) => Promise<void>;
  /** Throws where the rows of this node are not whole any more. */
  readonly requireWhole: () => void;
  /** How far a node is applied here, visibly; undefined where nothing is known of it. */
  readonly appliedOf: (node: string) => Promise<Lsn | undefined>;
  /** Resolves once everything that was deleted here up to a position in the WAL, which is on disk, is noted. */
  readonly noteOwnDeletes: (until: Lsn, signal: AbortSignal) => Promise<void>;
  /** Watches what is taken away here as older than a delete of this node's own that was noted later than it came. */
  readonly watchRemovals: () => Promise<RemovalWatch>;
  /** Keeps what is noted of deleted rows until the returned function is called, which may be done more than once. */
  readonly holdDeletes: () => () => void;
  /** Something that the peer is told of has gone wrong. */
  readonly failed: (error: MmliteError) => void;
  /** No change that is older than this, as PostgreSQL reads it, can come to the peer; `-infinity` where that is not known. */
  readonly oldBefore: () => Promise<string>;
  /** What is given at present, by the id that the snapshot was told with. */
  readonly underWay: Map<string, GivenRows>;
}

/** How often it is looked whether what is waited for is over, milliseconds. */
const LOOK_MS = 200;
/** How often the other node is told what is waited for, milliseconds. */
const TELL_MS = 5_000;
/** A Welcome has room for no longer a list of transactions, characters. */
const MAX_SNAPSHOT_LENGTH = 50_000;
/** Gives all rows on a channel; never throws: what goes wrong is told on it. */
export async function giveCopy(
  channel: Channel,
  ports: GivingPorts,
  signal: AbortSignal,
): Promise<void> {
  const lines = new Lines(channel);
  const gone = new AbortController();
  const ended = AbortSignal.any([signal, gone.signal]);
  const breakOff = () => lines.close();
  signal.addEventListener("abort", breakOff, { once: true });
  try {
    const request = parseRequest(await lines.read());
    if ("more" in request) return await giveMore(lines, { request: request.more, ports });
    // Nothing more comes: the end says that the other node has all, or is gone.
    const left = lines.read().catch(() => {}).then(() => gone.abort());
    await new Giving(lines, ports, ended).run(request.copy);
    await left;
    await lines.end();
  } catch (thrown) {
    const error = mapPostgresError(thrown, "give the rows");
    const { kind, message, hint } = error;
    if (!ended.aborted) ports.failed(error);
    await lines.write({ error: { kind, message, hint } }).then(() => lines.end()).catch(() => {});
  } finally {
    gone.abort();
    signal.removeEventListener("abort", breakOff);
    lines.close();
  }
}

/** Gives rows of a copy that is under way on one more channel. */
async function giveMore(
  lines: Lines,
  { request, ports }: { readonly request: MoreRequest; readonly ports: GivingPorts },
): Promise<void> {
  const rows = ports.underWay.get(request.copy);
  // Where the copy has ended meanwhile, nothing is left of it.
  if (rows?.peer === ports.peer) await rows.giveMore(lines);
  await lines.write({ end: "all" });
  await lines.end();
}

class Giving {
  readonly #lines: Lines;
  readonly #ports: GivingPorts;
  readonly #signal: AbortSignal;

  constructor(lines: Lines, ports: GivingPorts, signal: AbortSignal) {
    this.#lines = lines;
    this.#ports = ports;
    this.#signal = signal;
  }

  async run(request: CopyRequest): Promise<void> {
    const { target, serverVersion, isVersioned, requireAllowed, holdDeletes, watchRemovals } = this.#ports;
    await requireAllowed();
    await this.#awaitOthers(request);
    await this.#awaitRunning();
    const published = await this.#awaitTables();
    const source = await CopySource.open(target, { serverVersion, isVersioned, signal: this.#signal });
    // What was deleted is not forgotten until it is given: something older may come to the peer, though not here.
    const release = holdDeletes();
    const removals = await watchRemovals();
    try {
      await this.#give(source, { request, published, removals, release });
    } finally {
      removals.stop();
      release();
      await source.close();
    }
  }

  async #give(
    source: CopySource,
    { request, published, removals, release }: {
      readonly request: CopyRequest;
      readonly published: ReadonlySet<number>;
      readonly removals: RemovalWatch;
      readonly release: () => void;
    },
  ): Promise<void> {
    const { readTables, requireWhole, query, self, peer, oldBefore, underWay } = this.#ports;
    // Before the snapshot: what it lacks is newer than this.
    const facts = await source.take(await oldBefore());
    // What the snapshot sees is on disk here before any of it is given.
    await setMark(query);
    if (facts.quarantined > 0) throw this.#inQuarantine(facts.quarantined);
    if (facts.snapshot.length > MAX_SNAPSHOT_LENGTH) throw tooManyRunning();
    const reader = await source.openReader();
    try {
      const theirs = new Map(request.tables.map((table) => [tableKey(table), table]));
      const tables: DescribedTable[] = [];
      for (const table of await readTables(query)) {
        if (!published.has(table.oid)) throw isNew(table);
        const described = await reader.describe(table);
        tables.push({ ...described, table, binary: canBeBinary(described, theirs) });
      }
      const id = randomUUID();
      await this.#writeSnapshot(id, facts, tables);
      await reader.begin();
      await this.#writeNotes(reader.notes());
      await reader.end();
      await this.#giveLaterNotes(facts.untilLsn);
      // Rows that the snapshot has though they were deleted before: what deletes them is not sent.
      const { notes, since } = removals.removed();
      for (const note of notes) await this.#lines.write({ note });
      removals.stop();
      release();
      const rows = new GivenRows({
        ...{ self, peer, query, tables, before: await source.beforeAll(facts.before, since) },
        openReader: () => source.openReader(),
      });
      underWay.set(id, rows);
      const parts = await rows.give(this.#lines, reader).finally(() => underWay.delete(id));
      // What was emptied meanwhile for a copy to this node looks empty in the snapshot.
      requireWhole();
      await this.#lines.write({ end: "all", parts });
    } finally {
      await reader.close();
    }
  }

  async #writeSnapshot(id: string, facts: SnapshotFacts, tables: readonly DescribedTable[]): Promise<void> {
    await this.#lines.write({
      snapshot: {
        id,
        sees: facts.snapshot,
        until: formatLsn(facts.untilLsn),
        at: facts.takenAt,
        applied: facts.applied.filter(({ node }) => node !== this.#ports.peer)
          .map(({ node, lsn, commitTimestamp }) => ({ node, lsn: formatLsn(lsn), at: commitTimestamp })),
        tables: tables.map(({ schema, name, estimatedRows, columns }) => ({
          ...{ schema, name },
          columns: columns.map(({ name }) => name),
          rows: estimatedRows,
        })),
      },
    });
  }

  /** Deletes that the snapshot has: whatever is older may come to the other node still. */
  async #giveLaterNotes(untilLsn: Lsn): Promise<void> {
    const { target, noteOwnDeletes } = this.#ports;
    await this.#saying("what was deleted here is being noted", () => noteOwnDeletes(untilLsn, this.#signal));
    const client = await openClient(target, { applicationName: "mmlite copy", signal: this.#signal });
    try {
      const query = queryWith(client);
      await query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      await this.#writeNotes(readNotes(query, LATER_NOTES));
    } finally {
      await closeClient(client);
    }
  }

  async #writeNotes(notes: AsyncIterable<CopiedNote>): Promise<void> {
    for await (const note of notes) await this.#lines.write({ note });
  }

  /** The tables that are published before the snapshot is taken, by their OIDs. */
  async #awaitTables(): Promise<ReadonlySet<number>> {
    const { readTables, awaitTable, query } = this.#ports;
    const tables = await readTables(query);
    for (const table of tables) await awaitTable(table);
    return new Set(tables.map(({ oid }) => oid));
  }

  /** What third nodes committed before the peer's slots there begin is in the snapshot. */
  async #awaitOthers({ applied }: CopyRequest): Promise<void> {
    const { self, peer, appliedOf } = this.#ports;
    for (const { node, lsn } of applied) {
      if (node === self) continue;
      await this.#until(
        async () => {
          const applied = await appliedOf(node);
          if (node !== peer && applied === undefined) throw this.#unknown(node);
          return applied !== undefined && applied >= lsn;
        },
        `what node "${node}" committed before ${formatLsn(lsn)} has to be applied on "${self}" first`,
      );
    }
  }

  /** Transactions that run now may have written their commit records already, before the slot of the peer begins. */
  async #awaitRunning(): Promise<void> {
    const { query, self } = this.#ports;
    const next = await takeTransactionId(query);
    await this.#until(
      async () => await readOldestRunning(query) >= next,
      `transactions that run on "${self}" have to end first (pg_stat_activity and pg_prepared_xacts show them)`,
    );
  }

  async #until(isOver: () => Promise<boolean>, waiting: string): Promise<void> {
    await this.#saying(waiting, async () => {
      while (!await isOver()) {
        await delay(LOOK_MS, this.#signal);
        if (this.#signal.aborted) throw new MmliteError("aborted", "Cannot give the rows: stopped");
      }
    });
  }

  /** Tells the other node while work takes long. */
  async #saying(waiting: string, work: () => Promise<void>): Promise<void> {
    const tell = setInterval(() => void this.#lines.write({ waiting }).catch(() => {}), TELL_MS);
    try {
      await work();
    } finally {
      clearInterval(tell);
    }
  }

  #unknown(node: string): MmliteError {
    const { self } = this.#ports;
    return new MmliteError(
      "conflict",
      `Cannot give the rows: node "${node}" is a peer of the node that asks, and nothing of it is applied on "${self}"`,
      { hint: `Make "${node}" and "${self}" peers of each other, or copy from another node` },
    );
  }

  #inQuarantine(transactions: number): MmliteError {
    const count = transactions === 1 ? "1 transaction is" : `${transactions} transactions are`;
    return new MmliteError(
      "conflict",
      `Cannot give the rows: ${count} in quarantine on "${this.#ports.self}", and would be missing where the rows come to`,
      { hint: "Run `mmlite quarantine list` there, then retry or discard what is in it" },
    );
  }
}

function isNew(table: LocalTable): MmliteError {
  return new MmliteError(
    "transient",
    `Cannot give the rows: table ${formatTableName(table)} has been created meanwhile`,
    { hint: "The copy begins anew by itself" },
  );
}

function tooManyRunning(): MmliteError {
  return new MmliteError("transient", "Cannot give the rows: too many transactions run to be named", {
    hint: "It is tried again; about 4,000 at a time are few enough",
  });
}

/** Whether the binary form of all values means the same on both nodes; `theirs` by {@link tableKey}. */
function canBeBinary(
  { columns, ...table }: CopiedTable,
  theirs: ReadonlyMap<string, CopyRequest["tables"][number]>,
): boolean {
  const there = theirs.get(tableKey(table))?.columns ?? [];
  return columns.every(({ name, type }) =>
    isSameInBinary(type) && there.some((column) => column.name === name && column.type === type)
  );
}
