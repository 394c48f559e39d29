/**
 * The table `mmlite.peer`: which nodes this one replicates with, and what each has acked.
 */
import { MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import type { CopiedFrom } from "../wire/frame.ts";
import type { Query, Row } from "./query.ts";

/** What the operator wants of a peer. `removing`: drained first; `removed`: stays so until added again. */
export type PeerIntent = "active" | "paused" | "removing" | "removed";

/** A row of `mmlite.peer`. */
export interface PeerRow {
  readonly name: string;
  /** Where the peer's node is dialled; null for a peer that only dials us. */
  readonly url: string | null;
  readonly intent: PeerIntent;
  /** Where the slot for this peer began; null while there is none. */
  readonly slotLsn: Lsn | null;
  /** End of the last of our transactions that the peer holds on disk; null before the first. */
  readonly ackedLsn: Lsn | null;
  /** The peer's incarnation as first met; null before. */
  readonly incarnation: string | null;
  readonly systemIdentifier: string | null;
  readonly timeline: number | null;
  /** Whether the peer dials this node, as it said last; null before. */
  readonly dialsBack: boolean | null;
  /** The transactions of the peer that came with its rows; null if none did. */
  readonly copied: CopiedFrom | null;
  /** When it became a peer for the first time, microseconds since 2000-01-01 UTC; see {@link readSeenBefore}. */
  readonly createdAt: bigint;
  /** Since when nothing goes to it, RFC 3339 UTC; null while it does. */
  readonly awaySince: string | null;
  /** When and why its slot was dropped for the WAL that it kept; null while it was not. */
  readonly evicted: Eviction | null;
  /** Since when its rows may differ from ours, as something was never delivered, RFC 3339 UTC; null if nothing says so. */
  readonly repairDue: string | null;
}

/** Why there is no slot for a peer any more. */
export interface Eviction {
  /** RFC 3339 UTC. */
  readonly at: string;
  /** To stand behind "because". */
  readonly why: string;
}

const COLUMNS = "name, url, state, slot_lsn::text, acked_lsn::text, incarnation::text, system_identifier, " +
  "timeline::text, dials_back::text, copied_snapshot, copied_until::text, " +
  `${utc("away_since")}, ${utc("evicted_at")}, evicted_why, ${utc("repair_due")}, ` +
  "(extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text AS created_us";

function utc(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS ${column}`;
}

/** Every peer, removed ones included, by name. */
export async function readPeers(query: Query): Promise<PeerRow[]> {
  return (await query(`SELECT ${COLUMNS} FROM mmlite.peer ORDER BY name`)).map(toPeerRow);
}

/** One peer, or undefined if there is none of that name. */
export async function readPeer(query: Query, name: string): Promise<PeerRow | undefined> {
  const [row] = await query(`SELECT ${COLUMNS} FROM mmlite.peer WHERE name = $1`, [name]);
  return row === undefined ? undefined : toPeerRow(row);
}

/**
 * Whatever any node committed before this time a peer had before all that it sends, microseconds since 2000-01-01 UTC:
 * what both had when they became peers is what they began with. 0 for a node that never was one, and for all that were
 * peers when rows were copied here from one of them (`copy_target.ts`).
 */
export async function readSeenBefore(query: Query, name: string): Promise<bigint> {
  return (await readPeer(query, name))?.createdAt ?? 0n;
}

/** One peer; throws `not_found` if there is none of that name. */
export async function requirePeer(query: Query, name: string): Promise<PeerRow> {
  const row = await readPeer(query, name);
  if (row !== undefined) return row;
  throw new MmliteError("not_found", `Cannot replicate to peer "${name}": it is not registered`);
}

/** How many peers are sent to, or would be if they could be reached. */
export async function countActivePeers(query: Query): Promise<number> {
  const [row] = await query("SELECT count(*)::text AS active FROM mmlite.peer WHERE state = 'active'");
  return Number(row!.active);
}

/** Adds a peer, or gives it a new address and makes it active again. */
export async function savePeer(query: Query, peer: { name: string; url: string | null }): Promise<PeerRow> {
  const [row] = await query(
    `INSERT INTO mmlite.peer AS p (name, url) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET url = excluded.url, left_lsn = NULL, left_commit_timestamp = NULL,
       state = CASE WHEN p.state IN ('removing', 'removed') THEN 'active' ELSE p.state END
     RETURNING ${COLUMNS}`,
    [peer.name, peer.url],
  );
  return toPeerRow(row!);
}

/** Takes back what {@link savePeer} added, when the rest could not be set up; a peer with a slot stays. */
export async function forgetPeer(query: Query, name: string): Promise<void> {
  await query("DELETE FROM mmlite.peer WHERE name = $1 AND slot_lsn IS NULL", [name]);
}

/** Records what the operator wants of a peer. */
export async function setPeerIntent(query: Query, name: string, intent: PeerIntent): Promise<void> {
  await query("UPDATE mmlite.peer SET state = $2 WHERE name = $1", [name, intent]);
}

/** Records where the slot for a peer began. */
export async function setPeerSlot(query: Query, name: string, slotLsn: string): Promise<void> {
  await query("UPDATE mmlite.peer SET slot_lsn = $2::pg_lsn, acked_lsn = NULL WHERE name = $1", [
    name,
    slotLsn,
  ]);
}

/** What is known of a peer only as long as its slot and its life are the same. */
const FORGET_LIFE =
  `slot_lsn = NULL, acked_lsn = NULL, incarnation = NULL, system_identifier = NULL, timeline = NULL,
  copied_snapshot = NULL, copied_until = NULL, away_since = NULL, evicted_at = NULL, evicted_why = NULL`;

/** Forgets slot, ack and identity of a peer whose slot is gone; `removed` keeps the name from coming back by itself. */
export async function setPeerRemoved(query: Query, name: string): Promise<void> {
  await query(
    `UPDATE mmlite.peer SET state = 'removed', url = NULL, dials_back = NULL, repair_due = NULL, ${FORGET_LIFE}
      WHERE name = $1`,
    [name],
  );
}

/** Keeps on record how far a peer is applied here, as its progress is about to be forgotten. */
export async function keepLastProgress(query: Query, name: string): Promise<void> {
  await query(
    `UPDATE mmlite.peer p SET (left_lsn, left_commit_timestamp) =
       (SELECT g.lsn, g.commit_timestamp FROM mmlite.progress g WHERE g.origin = p.name)
      WHERE name = $1 AND EXISTS (SELECT 1 FROM mmlite.progress g WHERE g.origin = p.name)`,
    [name],
  );
}

/** What of a peer begins anew: what is sent to it, what is received from it, or both and who it is. */
export type RenewedWay = "sent" | "received" | "both";

const RENEWED: Readonly<Record<RenewedWay, string>> = {
  sent: "slot_lsn = NULL, acked_lsn = NULL, away_since = NULL, evicted_at = NULL, evicted_why = NULL",
  received: "copied_snapshot = NULL, copied_until = NULL",
  both: FORGET_LIFE,
};

/**
 * Forgets slot and ack of a peer that stays one, or what came with its rows, or both and who it is: whoever answers at
 * its address under its name is it from then on. Notes that rows may differ, in the same moment as it forgets how far
 * the peer is applied here; returns the row as it is then.
 */
export async function setPeerRenewed(query: Query, name: string, way: RenewedWay): Promise<PeerRow> {
  const [row] = await query(
    `${way === "sent" ? "" : "WITH forgotten AS (DELETE FROM mmlite.progress WHERE origin = $1)"}
     UPDATE mmlite.peer SET ${
      RENEWED[way]
    }, repair_due = clock_timestamp() WHERE name = $1 RETURNING ${COLUMNS}`,
    [name],
  );
  return toPeerRow(row!);
}

/** How far a node is applied here; nulls where nothing is known of it. */
export interface LastApplied {
  readonly lsn: Lsn | null;
  /** When the last of its transactions committed there, RFC 3339 UTC; null where none came. */
  readonly at: string | null;
}

/** How far a node is applied here, or was when it was removed. */
export async function readLastApplied(query: Query, name: string): Promise<LastApplied> {
  const [row] = await query(
    `SELECT lsn::text, ${utc("at")} FROM (
       SELECT 1 AS place, lsn, commit_timestamp AS at FROM mmlite.progress WHERE origin = $1
       UNION ALL SELECT 2, left_lsn, left_commit_timestamp FROM mmlite.peer WHERE name = $1 AND state = 'removed'
     ) known ORDER BY place LIMIT 1`,
    [name],
  );
  return { lsn: row?.lsn == null ? null : parseLsn(row.lsn), at: row?.at ?? null };
}

/** Notes that a peer is to be sent nothing any more until it begins anew. */
export async function setPeerEvicted(
  query: Query,
  { name, why }: { readonly name: string; readonly why: string },
): Promise<Eviction> {
  const [row] = await query(
    `UPDATE mmlite.peer SET evicted_at = clock_timestamp(), evicted_why = $2 WHERE name = $1 RETURNING ${COLUMNS}`,
    [name, why],
  );
  return toPeerRow(row!).evicted!;
}

/** Notes that from now on nothing goes to a peer, or that something does again; returns since when. */
export async function setPeerAway(
  query: Query,
  { name, isAway }: { readonly name: string; readonly isAway: boolean },
): Promise<string | null> {
  const [row] = await query(
    `UPDATE mmlite.peer SET away_since = CASE WHEN $2::boolean THEN coalesce(away_since, clock_timestamp()) END,
       away_counted = CASE WHEN away_since IS NULL THEN 0 ELSE away_counted END
      WHERE name = $1 RETURNING ${COLUMNS}`,
    [name, String(isAway)],
  );
  return row === undefined ? null : toPeerRow(row).awaySince;
}

/** For how long a peer that is away was seen to be, seconds, as it was put on record last. */
export async function readAwayCounted(query: Query, name: string): Promise<number> {
  const [row] = await query("SELECT away_counted::text FROM mmlite.peer WHERE name = $1", [name]);
  return Number(row?.away_counted ?? 0);
}

/** Puts that on record. */
export async function setAwayCounted(query: Query, name: string, seconds: number): Promise<void> {
  await query("UPDATE mmlite.peer SET away_counted = $2::double precision WHERE name = $1", [
    name,
    String(seconds),
  ]);
}

/**
 * Notes that rows may differ from those of a peer; returns since when: what was compared before says nothing of it, so it
 * is another time at each call.
 */
export async function setRepairDue(query: Query, name: string): Promise<string | null> {
  const [row] = await query(
    `UPDATE mmlite.peer SET repair_due = clock_timestamp() WHERE name = $1 RETURNING ${COLUMNS}`,
    [name],
  );
  return row === undefined ? null : toPeerRow(row).repairDue;
}

/** Notes that rows do not differ from those of a peer any more. */
export async function clearRepairDue(query: Query, name: string): Promise<void> {
  await query("UPDATE mmlite.peer SET repair_due = NULL WHERE name = $1", [name]);
}

/** Makes sure that a node is no peer here until somebody adds it, as if it had been removed; a peer stays one. */
export async function ensureRemoved(query: Query, name: string): Promise<void> {
  await query("INSERT INTO mmlite.peer (name, state) VALUES ($1, 'removed') ON CONFLICT DO NOTHING", [name]);
}

/** Who a peer said it is. */
export interface PeerIdentity {
  readonly incarnation: string;
  readonly systemIdentifier: string;
  readonly timeline: number;
}

/**
 * Records who a peer is, at the first meeting and when its timeline moves on. Throws `fenced` if another life of
 * its database was met meanwhile: of two that come at once only one is the peer; `not_found` if it was removed.
 */
export async function setPeerIdentity(query: Query, name: string, identity: PeerIdentity): Promise<void> {
  const written = await query(
    `UPDATE mmlite.peer SET incarnation = $2::uuid, system_identifier = $3, timeline = $4::integer
      WHERE name = $1 AND state <> 'removed' AND (incarnation IS NULL OR incarnation = $2::uuid)
      RETURNING name`,
    [name, identity.incarnation, identity.systemIdentifier, String(identity.timeline)],
  );
  if (written.length > 0) return;
  const row = await readPeer(query, name);
  if (row === undefined || row.intent === "removed") {
    throw new MmliteError("not_found", `Cannot replicate with peer "${name}": it is not registered`);
  }
  throw new MmliteError(
    "fenced",
    `Cannot replicate with peer "${name}": another life of its database was met at the same time`,
    { hint: "Find out which of the two is the peer and stop the other one, then run `mmlite peers retry`" },
  );
}

/** Records whether a peer dials this node. */
export async function setPeerDialsBack(query: Query, name: string, dialsBack: boolean): Promise<void> {
  await query("UPDATE mmlite.peer SET dials_back = $2 WHERE name = $1", [name, String(dialsBack)]);
}

/**
 * Stores a peer's ack; on disk when this returns, because the slot is confirmed right after: `query` must commit
 * synchronously, as the control connections do.
 *
 * Only forward: a lower position than the stored one changes nothing.
 */
export async function storeAck(query: Query, name: string, endLsn: string): Promise<void> {
  await query(
    `UPDATE mmlite.peer SET acked_lsn = $2::pg_lsn
      WHERE name = $1 AND (acked_lsn IS NULL OR acked_lsn < $2::pg_lsn)`,
    [name, endLsn],
  );
}

function toPeerRow(row: Row): PeerRow {
  return {
    name: row.name!,
    url: row.url ?? null,
    intent: row.state as PeerIntent,
    slotLsn: row.slot_lsn == null ? null : parseLsn(row.slot_lsn),
    ackedLsn: row.acked_lsn == null ? null : parseLsn(row.acked_lsn),
    incarnation: row.incarnation ?? null,
    systemIdentifier: row.system_identifier ?? null,
    timeline: row.timeline == null ? null : Number(row.timeline),
    dialsBack: row.dials_back == null ? null : row.dials_back === "true",
    copied: row.copied_snapshot == null
      ? null
      : { snapshot: row.copied_snapshot, until: parseLsn(row.copied_until!) },
    createdAt: BigInt(row.created_us!),
    awaySince: row.away_since ?? null,
    evicted: row.evicted_at == null ? null : { at: row.evicted_at, why: row.evicted_why ?? "" },
    repairDue: row.repair_due ?? null,
  };
}
