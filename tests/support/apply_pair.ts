/**
 * Two real databases for tests of apply: one whose slot is read by SQL, and one that its transactions are applied
 * to, with nothing between them but the applier.
 */
import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import type pg from "pg";
import {
  type Applier,
  type ApplierOptions,
  type ApplyObserver,
  type ChangeKind,
  openApplier,
} from "../../src/apply/applier.ts";
import { Trust } from "../../src/apply/trust.ts";
import { type ConflictType, DEFAULT_POLICY, type Resolution } from "../../src/conflict_policy.ts";
import { MmliteError } from "../../src/errors.ts";
import { type Lsn, parseLsn } from "../../src/lsn.ts";
import { closeClient, openClient } from "../../src/pg/client.ts";
import { ensureOrigin, nextEpoch, originName, startProgress } from "../../src/pg/progress.ts";
import { queryWith } from "../../src/pg/query.ts";
import { ensureSchema } from "../../src/pg/schema.ts";
import { parsePostgresUrl } from "../../src/pg/target.ts";
import type { PostgresServer } from "./postgres.ts";

/** The sender's node name in these tests. */
export const ORIGIN = "ams";
/** The schema of a pair that is not given another. */
export const TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/** What an applier has told its observer and its owner. */
export class Seen implements ApplyObserver {
  transactions = 0;
  /** Local transactions that they were applied in. */
  commits = 0;
  changes = 0;
  readonly kinds: Record<ChangeKind, number> = { insert: 0, update: 0, delete: 0, truncate: 0 };
  readonly conflicts: ConflictType[] = [];
  readonly resolutions: Resolution[] = [];
  duplicates = 0;
  caughtUpTo: bigint | undefined;
  readonly acks: Lsn[] = [];

  committed({ transactions, changes }: { transactions: number; changes: number }): void {
    this.transactions += transactions;
    this.commits++;
    this.changes += changes;
  }
  change(kind: ChangeKind, count: number): void {
    this.kinds[kind] += count;
  }
  conflict(type: ConflictType, resolution: Resolution): void {
    this.conflicts.push(type);
    this.resolutions.push(resolution);
  }
  caughtUp(committedBefore: bigint): void {
    this.caughtUpTo = committedBefore;
  }
  deduplicated(count: number): void {
    this.duplicates += count;
  }
}

/** Where the pair is and how the source publishes. */
export interface PairOptions {
  readonly source: PostgresServer;
  readonly target: PostgresServer;
  /** Names the two databases (`<name>_src`, `<name>_dst`). */
  readonly name: string;
  /** Run in both databases before anything is recorded. */
  readonly schema: string;
  /** Run in the target only, after `schema`. */
  readonly targetSchema?: string;
  /** Options of the publication, such as `publish_via_partition_root = true`. */
  readonly publish?: string;
  /** Whether the source sends values in binary form; from 14 on. */
  readonly binary?: boolean;
}

/** A source database with a slot, and a target database with schema `mmlite`. */
export class ApplyPair implements AsyncDisposable {
  readonly source: pg.Client;
  readonly target: pg.Client;
  readonly #options: PairOptions;
  readonly #slotLsn: string;
  readonly #openedAt: bigint;

  private constructor(
    options: PairOptions,
    clients: { source: pg.Client; target: pg.Client; slotLsn: string; openedAt: bigint },
  ) {
    this.#openedAt = clients.openedAt;
    this.#options = options;
    this.source = clients.source;
    this.target = clients.target;
    this.#slotLsn = clients.slotLsn;
  }

  static async open(options: PairOptions): Promise<ApplyPair> {
    const { source, target, name, schema, targetSchema, publish } = options;
    await source.createDatabase(`${name}_src`);
    await target.createDatabase(`${name}_dst`);
    const from = await source.connect(`${name}_src`);
    const to = await target.connect(`${name}_dst`);
    await from.query(
      "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET timezone = 'UTC'",
    );
    await from.query(schema);
    await to.query(schema);
    if (targetSchema !== undefined) await to.query(targetSchema);
    const query = async (text: string, params?: readonly unknown[]) => {
      const result = await to.query(text, params && [...params]);
      return (Array.isArray(result) ? result.at(-1) : result).rows;
    };
    await ensureSchema(query);
    await ensureOrigin(query, ORIGIN);
    await from.query(`CREATE PUBLICATION p FOR ALL TABLES${publish ? ` WITH (${publish})` : ""}`);
    const { rows } = await from.query(
      "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')",
      [`${name}_slot`],
    );
    await startProgress(query, ORIGIN, rows[0].lsn);
    await to.query(
      "INSERT INTO mmlite.node (cluster, name, incarnation) VALUES ('test', 'fra', '00000000-0000-0000-0000-000000000000')",
    );
    const { rows: [{ now }] } = await to.query(
      "SELECT trunc(extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::text AS now",
    );
    return new ApplyPair(options, {
      source: from,
      target: to,
      slotLsn: rows[0].lsn,
      openedAt: BigInt(now.split(".")[0]),
    });
  }

  /** Where the source's slot began. */
  get slotLsn(): Lsn {
    return parseLsn(this.#slotLsn);
  }

  /** Runs SQL at the source and returns the pgoutput messages of all that it committed since the last call. */
  async record(...statements: string[]): Promise<Uint8Array[]> {
    for (const statement of statements) await this.source.query(statement);
    const { binary = false, name } = this.#options;
    const form = binary ? ", 'binary', 'true'" : "";
    const { rows } = await this.source.query(
      `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'p'${form})`,
      [`${name}_slot`],
    );
    return rows.map((row) => new Uint8Array(row.data as Buffer));
  }

  /** What an applier is opened with: in a new epoch, at the stored position. */
  async applierOptions(seen: Seen, overrides: Partial<ApplierOptions> = {}): Promise<ApplierOptions> {
    const target = await parsePostgresUrl(
      this.#options.target.url(`${this.#options.name}_dst`),
      {},
    );
    const client = await openClient(target, { applicationName: "test" });
    const progress = await nextEpoch(queryWith(client), overrides.origin ?? ORIGIN);
    await closeClient(client);
    return {
      target,
      origin: ORIGIN,
      originName: originName(ORIGIN),
      epoch: BigInt(progress.epoch),
      position: progress.lsn,
      onDurable: (endLsn) => void seen.acks.push(endLsn),
      observer: seen,
      trust: new Trust(),
      mayGroup: () => true,
      policyOf: () => DEFAULT_POLICY,
      seenBefore: this.#openedAt,
      others: () => [],
      clock: { untilPassed: () => 0 },
      maxClockWaitMs: 10_000,
      causes: { areMet: () => true, wait: () => Promise.resolve() },
      applied: { committing: () => {}, committed: () => {}, visible: () => {} },
      signal: new AbortController().signal,
      ...overrides,
    };
  }

  /** Opens an applier in a new epoch at the stored position. */
  async openApplier(seen: Seen, overrides: Partial<ApplierOptions> = {}): Promise<Applier> {
    return await openApplier(await this.applierOptions(seen, overrides));
  }

  /** The same of another sender, from where the slot began. */
  async openApplierOf(origin: string, seen: Seen, overrides: Partial<ApplierOptions> = {}): Promise<Applier> {
    const client = await this.connectTarget();
    const query = async (text: string, params?: readonly unknown[]) =>
      (await client.query(text, params && [...params])).rows;
    await ensureOrigin(query, origin);
    await startProgress(query, origin, this.#slotLsn);
    await client.end();
    return await this.openApplier(seen, { origin, originName: originName(origin), ...overrides });
  }

  /** A further session at the target; the caller ends it. */
  async connectTarget(): Promise<pg.Client> {
    return await this.#options.target.connect(`${this.#options.name}_dst`);
  }

  /** Applies messages in a session of its own and returns what was seen; throws the applier's failure. */
  async apply(messages: readonly Uint8Array[]): Promise<Seen> {
    const seen = new Seen();
    const applier = await this.openApplier(seen);
    try {
      await pushAll(applier, messages);
      return seen;
    } finally {
      await applier.close();
    }
  }

  /** Runs SQL at the source and applies what it committed. */
  async replicate(...statements: string[]): Promise<Seen> {
    return await this.apply(await this.record(...statements));
  }

  /** Rows of the target as text. */
  async rows(sql: string): Promise<string[]> {
    const { rows } = await this.target.query({ text: `SELECT x::text FROM (${sql}) x`, rowMode: "array" });
    return rows.map((row) => row[0]);
  }

  /** The same query's rows on both sides. */
  async both(sql: string): Promise<[source: string[], target: string[]]> {
    const { rows } = await this.source.query({ text: `SELECT x::text FROM (${sql}) x`, rowMode: "array" });
    return [rows.map((row) => row[0]), await this.rows(sql)];
  }

  /** The stored position. */
  async position(): Promise<Lsn> {
    const [text] = await this.rows(`SELECT lsn FROM mmlite.progress`);
    return parseLsn(text.slice(1, -1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source.query("SELECT pg_drop_replication_slot($1)", [`${this.#options.name}_slot`]);
    await this.source.end();
    await this.target.end();
  }
}

/** Pushes messages, waiting when told to, and waits until they are executed. */
export async function pushAll(applier: Applier, messages: readonly Uint8Array[]): Promise<void> {
  for (const message of messages) {
    const room = applier.push(message);
    if (room !== undefined) await room;
  }
  await applier.idle();
}

/** Transactions as if they had been committed an hour later. */
export function later(messages: readonly Uint8Array[]): Uint8Array[] {
  return messages.map((message) => {
    const bytes = message.slice();
    const view = new DataView(bytes.buffer);
    const place = bytes[0] === 0x42 ? 9 : bytes[0] === 0x43 ? 18 : undefined;
    if (place !== undefined) view.setBigInt64(place, view.getBigInt64(place) + 3_600_000_000n);
    return bytes;
  });
}

/** Runs a body with a pair of databases on one server; {@link TABLE} is their schema where left out. */
export async function withPair(
  server: PostgresServer,
  { name, schema = TABLE, targetSchema, binary }: {
    name: string;
    schema?: string;
    targetSchema?: string;
    binary?: boolean;
  },
  body: (pair: ApplyPair) => Promise<void>,
): Promise<void> {
  await using pair = await ApplyPair.open({
    ...{ source: server, target: server, name, schema, targetSchema, binary },
  });
  await body(pair);
}

/** Steps of a test, each with a pair of databases of its own on one server. */
export function stepsOn(t: Deno.TestContext, server: PostgresServer) {
  return (
    name: string,
    options: { name: string; schema?: string; targetSchema?: string; binary?: boolean },
    body: (pair: ApplyPair) => Promise<void>,
  ) => t.step(name, () => withPair(server, options, body));
}

/** The error of ours that a promise rejects with. */
export async function errorOf(promise: Promise<unknown>): Promise<MmliteError> {
  const thrown = await promise.then(() => undefined, (error) => error);
  assert.ok(thrown instanceof MmliteError, `expected an error of ours, not ${thrown}`);
  return thrown;
}
