/**
 * The schema `mmlite`: everything durable that a node knows, and the functions that apply sessions call.
 *
 * Each step is one string of SQL, run as one transaction; a database records how many steps it has. Steps are
 * only ever added.
 */
import type { Query } from "./query.ts";
import { MmliteError } from "../errors.ts";

/** SQLSTATE of `mmlite.begin_apply` when the compare-and-set of the position finds another position or epoch. */
export const POSITION_MOVED_SQLSTATE = "MM001";
/** SQLSTATE of the notice by which `mmlite.note_conflict` reports a conflict type. */
export const CONFLICT_SQLSTATE = "MM010";

const STEPS: readonly string[] = [
  `CREATE SCHEMA IF NOT EXISTS mmlite;

CREATE TABLE mmlite.schema_step (step integer PRIMARY KEY, done_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE mmlite.node (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  cluster text NOT NULL,
  name text NOT NULL,
  incarnation uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mmlite.node IS 'who this database is in the cluster; incarnation is also in a file beside mmlite';

CREATE TABLE mmlite.peer (
  name text PRIMARY KEY,
  url text,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'removing', 'removed')),
  slot_lsn pg_lsn,
  acked_lsn pg_lsn,
  incarnation uuid,
  system_identifier text,
  timeline integer,
  created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON COLUMN mmlite.peer.slot_lsn IS 'where the slot for this peer began; null until the slot was made';
COMMENT ON COLUMN mmlite.peer.acked_lsn IS
  'end of the last transaction that the peer holds on disk, stored before the slot is confirmed';

CREATE TABLE mmlite.progress (
  origin text PRIMARY KEY,
  lsn pg_lsn NOT NULL,
  commit_timestamp timestamptz,
  epoch bigint NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE mmlite.progress IS
  'how far each other node''s transactions are applied here; written in the same transaction as their rows';

CREATE FUNCTION mmlite.begin_apply(
  of_origin text, from_lsn pg_lsn, to_lsn pg_lsn, in_epoch bigint, at_commit timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- Where this session left the row. By its key it is found only past every older version of it, and while a
  -- snapshot is open there is one more with each transaction. Only a scan by the key removes them: every 1,000th.
  place tid := CASE WHEN random() > 0.001 THEN nullif(current_setting('mmlite.place', true), '')::tid END;
BEGIN
  UPDATE mmlite.progress SET lsn = to_lsn, commit_timestamp = at_commit
   WHERE ctid = place AND origin = of_origin AND lsn = from_lsn AND epoch = in_epoch RETURNING ctid INTO place;
  IF NOT FOUND THEN
    UPDATE mmlite.progress SET lsn = to_lsn, commit_timestamp = at_commit
     WHERE origin = of_origin AND lsn = from_lsn AND epoch = in_epoch RETURNING ctid INTO place;
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'position of origin % is not % in epoch %', of_origin, from_lsn, in_epoch
      USING ERRCODE = '${POSITION_MOVED_SQLSTATE}';
  END IF;
  PERFORM set_config('mmlite.place', place::text, false);
END $$;

CREATE FUNCTION mmlite.note_conflict(conflict_type text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RAISE NOTICE '%', conflict_type USING ERRCODE = '${CONFLICT_SQLSTATE}';
  RETURN true;
END $$;

REVOKE ALL ON SCHEMA mmlite FROM PUBLIC;
INSERT INTO mmlite.schema_step (step) VALUES (1);`,

  `CREATE TABLE mmlite.invite (
  id text PRIMARY KEY,
  secret_hash text NOT NULL,
  node text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_by text,
  used_key text
);
COMMENT ON TABLE mmlite.invite IS 'one-time tokens by which new nodes join through this one';
COMMENT ON COLUMN mmlite.invite.secret_hash IS 'SHA-256 of the token''s secret, which is kept nowhere';
COMMENT ON COLUMN mmlite.invite.node IS 'the only name that may join by it; null for any';
COMMENT ON COLUMN mmlite.invite.used_key IS 'SHA-256 of the public key that it was used for: that one may ask again';
INSERT INTO mmlite.schema_step (step) VALUES (2);`,

  `ALTER TABLE mmlite.peer ADD COLUMN dials_back boolean;
COMMENT ON COLUMN mmlite.peer.dials_back IS
  'whether the peer dials this node, as it said last; if not, this node opens it a stream to push over';
INSERT INTO mmlite.schema_step (step) VALUES (3);`,
];

/** The SQL that brings a database with `done` steps up to this version, one transaction per element. */
export function schemaStatements(done: number): readonly string[] {
  return STEPS.slice(done);
}

/** How many steps the database has; 0 where there is no schema `mmlite`. */
export async function readSchemaSteps(query: Query): Promise<number> {
  const [table] = await query("SELECT to_regclass('mmlite.schema_step') AS found");
  if (table?.found == null) return 0;
  const [row] = await query("SELECT coalesce(max(step), 0)::text AS steps FROM mmlite.schema_step");
  return Number(row?.steps);
}

/**
 * Creates or completes the schema; idempotent. Throws a `config` error when a newer mmlite has been here.
 *
 * `query` must send its text by the simple protocol, so that a step is one transaction.
 */
export async function ensureSchema(query: Query): Promise<void> {
  const done = await readSchemaSteps(query);
  if (done > STEPS.length) {
    throw new MmliteError(
      "config",
      `Cannot use schema "mmlite": it is at step ${done}, and this version knows ${STEPS.length}`,
      { hint: "Run the newer mmlite that made it" },
    );
  }
  for (const step of schemaStatements(done)) await query(step);
}
