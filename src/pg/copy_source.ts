/**
 * One snapshot of this database as a node that joins copies it, and what it has of other nodes.
 *
 * The snapshot is an ordinary one. One that comes with a replication slot can take a transaction for aborted that is
 * about to be committed (pgsql-hackers, January 2026, "Race conditions in logical decoding").
 */
import { type Lsn, parseLsn } from "../lsn.ts";
import { type Client, closeClient, destroyClient, openClient, passAnyBytes } from "./client.ts";
import { CopyReader, type SourceFacts } from "./copy_reader.ts";
import { type Query, queryWith } from "./query.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import type { PostgresTarget } from "./target.ts";
import { SEEN_UNTIL } from "./unsent.ts";

/** How far another node is applied in the snapshot. */
export interface AppliedInSnapshot {
  readonly node: string;
  readonly lsn: Lsn;
  /** When the last of its transactions was committed there, as PostgreSQL prints it; null before the first. */
  readonly commitTimestamp: string | null;
}

/** What the snapshot is. */
export interface SnapshotFacts {
  /** `txid_current_snapshot()`: which local transactions it sees. */
  readonly snapshot: string;
  /** Whatever it sees was committed before this position in the WAL. */
  readonly untilLsn: Lsn;
  readonly applied: readonly AppliedInSnapshot[];
  /** What was committed up to then counts as old; rows that await values do not. */
  readonly before: string;
  /** When it was taken, by the server's clock, microseconds since 2000-01-01 UTC as text. */
  readonly takenAt: string;
  /** Transactions in quarantine, which it lacks. */
  readonly quarantined: number;
}

const SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  // An error instead of the rows that a policy leaves.
  row_security: "off",
  statement_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  default_transaction_read_only: "off",
};

/** A transaction with one snapshot, open until {@link CopySource.close}. */
export class CopySource {
  readonly #holder: Client;
  readonly #options: CopySourceOptions;
  readonly #target: PostgresTarget;
  #exported = "";

  private constructor(holder: Client, target: PostgresTarget, options: CopySourceOptions) {
    this.#holder = holder;
    this.#target = target;
    this.#options = options;
  }

  /** Takes no snapshot yet: {@link CopySource.take} does. `signal` breaks the connections off. */
  static async open(target: PostgresTarget, options: CopySourceOptions): Promise<CopySource> {
    return new CopySource(await openSession(target, options.signal), target, options);
  }

  /** Lets go of the snapshot: what reads it then goes on to. */
  async close(): Promise<void> {
    await closeClient(this.#holder);
  }

  /** Another connection that reads the snapshot, once it is taken. */
  async openReader(): Promise<CopyReader> {
    const { signal, ...facts } = this.#options;
    return new CopyReader(await openSession(this.#target, signal), { ...facts, snapshot: this.#exported });
  }

  /** `before`, or a time just before the first of others if that is earlier: all as PostgreSQL reads them. */
  async beforeAll(before: string, others: readonly string[]): Promise<string> {
    const [row] = await queryWith(this.#holder)(
      `SELECT least($1::timestamptz, (SELECT min(o) FROM unnest($2::timestamptz[]) o) - interval '1 microsecond')::text AS before`,
      [before, others],
    );
    return row.before!;
  }

  /** Takes the snapshot; once. Nothing that was committed before `before` comes to the other node any more. */
  async take(before: string): Promise<SnapshotFacts> {
    const query = queryWith(this.#holder);
    await query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const [row] = await query(
      `SELECT pg_export_snapshot() AS exported, txid_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS until,
         (SELECT json_agg(json_build_object('node', origin, 'lsn', lsn::text, 'at', commit_timestamp::text))
            FROM mmlite.progress)::text AS applied,
         least($1::timestamptz, (SELECT min(at) - interval '1 microsecond' FROM mmlite.unsent))::text AS before,
         (SELECT count(*) FROM mmlite.quarantine)::text AS quarantined,
         (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text AS taken_at`,
      [before],
    );
    const applied: { node: string; lsn: string; at: string | null }[] = JSON.parse(row.applied ?? "[]");
    this.#exported = row.exported!;
    return {
      snapshot: row.snapshot!,
      untilLsn: parseLsn(row.until!),
      applied: applied.map(({ node, lsn, at }) => ({ node, lsn: parseLsn(lsn), commitTimestamp: at })),
      before: row.before!,
      quarantined: Number(row.quarantined),
      takenAt: row.taken_at!,
    };
  }
}

/** What {@link CopySource} needs to know. */
interface CopySourceOptions extends SourceFacts {
  readonly signal: AbortSignal;
}

async function openSession(target: PostgresTarget, signal: AbortSignal): Promise<Client> {
  const client = await openClient(target, { applicationName: "mmlite copy", settings: SETTINGS, signal });
  signal.addEventListener("abort", () => destroyClient(client), { once: true });
  await passAnyBytes(client);
  const query = queryWith(client);
  for (const name of ["transaction_timeout", "idle_session_timeout"]) {
    await query(`SELECT set_config(name, '0', false) FROM pg_settings WHERE name = '${name}'`);
  }
  return client;
}

/**
 * What was committed here before this, as PostgreSQL reads it, is to be seen, less a margin in milliseconds; and it is no
 * later than `horizon`, milliseconds since 1970-01-01 UTC.
 */
export async function readSettledBefore(
  query: Query,
  { horizon, marginMs }: { readonly horizon: number; readonly marginMs: number },
): Promise<string> {
  const [row] = await query(
    `SELECT least(${SEEN_UNTIL} - $1::float8 * interval '1 ms', to_timestamp($2::float8 / 1000))::text AS before`,
    [String(marginMs), String(horizon)],
  );
  return row.before!;
}

/**
 * The id of a new transaction: all that run now have ended once {@link readOldestRunning} is no older. What a snapshot
 * calls the next id would not do, as it follows the last transaction that has ended.
 */
export async function takeTransactionId(query: Query): Promise<bigint> {
  const [row] = await query("SELECT txid_current()::text AS next");
  return BigInt(row.next!);
}

/** The oldest transaction that runs, in any database of the server; the next one where none does. */
export async function readOldestRunning(query: Query): Promise<bigint> {
  const [row] = await query("SELECT txid_snapshot_xmin(txid_current_snapshot())::text AS oldest");
  return BigInt(row.oldest!);
}
