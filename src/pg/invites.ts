/**
 * The table `mmlite.invite`: which one-time tokens this node has given out, and what became of them.
 *
 * A token's secret is nowhere in it, only its hash. Times are the database's: its clock says what has expired.
 */
import type { Query, Row } from "./query.ts";

/** A row of `mmlite.invite`. */
export interface InviteRow {
  readonly id: string;
  /** SHA-256 of the secret, hex. */
  readonly secretHash: string;
  /** The only name that may join by it; null for any. */
  readonly node: string | null;
  /** RFC 3339 UTC, as the other times. */
  readonly createdAt: string;
  readonly expiresAt: string;
  /** Until it expires, seconds; 0 once it has. */
  readonly remainingSeconds: number;
  readonly usedAt: string | null;
  /** The node that joined by it. */
  readonly usedBy: string | null;
  /** SHA-256 of that node's public key, hex. */
  readonly usedKey: string | null;
}

/** Expired invites are forgotten after this, days. */
const KEPT_DAYS = 7;

const TIME = `'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'`;
const COLUMNS = `id, secret_hash, node, used_by, used_key,
  ceil(extract(epoch FROM greatest(expires_at - now(), '0')))::text AS remaining,
  to_char(created_at AT TIME ZONE 'UTC', ${TIME}) AS created_at,
  to_char(expires_at AT TIME ZONE 'UTC', ${TIME}) AS expires_at,
  to_char(used_at AT TIME ZONE 'UTC', ${TIME}) AS used_at`;

/** Adds an invite that expires `ttlSeconds` from now, and forgets those that expired days ago. */
export async function createInvite(
  query: Query,
  invite: Pick<InviteRow, "id" | "secretHash" | "node"> & { readonly ttlSeconds: number },
): Promise<InviteRow> {
  await query(`DELETE FROM mmlite.invite WHERE expires_at < now() - interval '${KEPT_DAYS} days'`);
  const [row] = await query(
    `INSERT INTO mmlite.invite (id, secret_hash, node, expires_at)
     VALUES ($1, $2, $3, now() + $4::integer * interval '1 second') RETURNING ${COLUMNS}`,
    [invite.id, invite.secretHash, invite.node, String(invite.ttlSeconds)],
  );
  return toInviteRow(row!);
}

/** Every invite on record, the latest first. */
export async function readInvites(query: Query): Promise<InviteRow[]> {
  return (await query(`SELECT ${COLUMNS} FROM mmlite.invite ORDER BY mmlite.invite.created_at DESC, id`))
    .map(toInviteRow);
}

/** One invite, or undefined if there is none of that id. */
export async function readInvite(query: Query, id: string): Promise<InviteRow | undefined> {
  const [row] = await query(`SELECT ${COLUMNS} FROM mmlite.invite WHERE id = $1`, [id]);
  return row === undefined ? undefined : toInviteRow(row);
}

/**
 * Uses an invite for a node and its key, once: again only for the same two. Whether it could be, atomically: of two
 * that come at once one wins.
 */
export async function useInvite(
  query: Query,
  { id, node, key }: { readonly id: string; readonly node: string; readonly key: string },
): Promise<boolean> {
  const used = await query(
    `UPDATE mmlite.invite SET used_at = COALESCE(used_at, now()), used_by = $2, used_key = $3
      WHERE id = $1 AND expires_at > now() AND (node IS NULL OR node = $2)
        AND (used_at IS NULL OR (used_by = $2 AND used_key = $3)) RETURNING id`,
    [id, node, key],
  );
  return used.length > 0;
}

/** Forgets the invites that a node used, so that it does not join by them once more. */
export async function deleteInvitesOf(query: Query, node: string): Promise<void> {
  await query("DELETE FROM mmlite.invite WHERE used_by = $1", [node]);
}

/** Forgets an invite, used or not; whether there was one. A certificate that was issued by it stays valid. */
export async function deleteInvite(query: Query, id: string): Promise<boolean> {
  return (await query("DELETE FROM mmlite.invite WHERE id = $1 RETURNING id", [id])).length > 0;
}

function toInviteRow(row: Row): InviteRow {
  return {
    id: row.id!,
    secretHash: row.secret_hash!,
    node: row.node ?? null,
    createdAt: row.created_at!,
    expiresAt: row.expires_at!,
    remainingSeconds: Number(row.remaining),
    usedAt: row.used_at ?? null,
    usedBy: row.used_by ?? null,
    usedKey: row.used_key ?? null,
  };
}
