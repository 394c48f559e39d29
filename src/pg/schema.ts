/**
 * The schema `mmlite`: everything durable that a node knows, and the functions that apply sessions call.
 *
 * Each step is one string of SQL, run as one transaction; a database records how many steps it has. Steps are
 * only ever added.
 */
import type { Query } from "./query.ts";
import { MmliteError } from "../errors.ts";
import {
  CONFLICT_SQLSTATE,
  CONFLICT_STEP,
  POSITION_MOVED_SQLSTATE,
  SETTLE_ROWS_SQLSTATE,
} from "./conflict_schema.ts";
import { COPY_STEP, GO_LIVE_STEP } from "./copy_schema.ts";
import { CONFLICT_RECORD_STEP } from "./conflict_record_schema.ts";
import { LATER_TABLES_STEP } from "./later_tables_schema.ts";
import { QUARANTINE_STEP } from "./quarantine_schema.ts";
import { LEAVE_STEP } from "./leave_schema.ts";
import { RETRY_STEP } from "./retry_schema.ts";
import { SECOND_LOOK_STEP } from "./second_look_schema.ts";
import { GONE_STEP, TOMBSTONE_STEP } from "./tombstone_schema.ts";
import { TRUNCATE_STEP } from "./truncate_schema.ts";

/** In their order; a step's number is its place, counted from 1, and is recorded after its SQL. */
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

REVOKE ALL ON SCHEMA mmlite FROM PUBLIC;`,

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
COMMENT ON COLUMN mmlite.invite.used_key IS 'SHA-256 of the public key that it was used for: that one may ask again';`,

  `ALTER TABLE mmlite.peer ADD COLUMN dials_back boolean;
COMMENT ON COLUMN mmlite.peer.dials_back IS
  'whether the peer dials this node, as it said last; if not, this node opens it a stream to push over';`,

  `CREATE FUNCTION mmlite.require_rows(changed bigint, wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF changed <> wanted THEN
    RAISE EXCEPTION '% rows were found, not %', changed, wanted USING ERRCODE = '${SETTLE_ROWS_SQLSTATE}';
  END IF;
END $$;

CREATE TABLE mmlite.apply_group (
  xid bigint NOT NULL,
  origin text NOT NULL,
  first_timestamp timestamptz NOT NULL,
  last_timestamp timestamptz NOT NULL,
  entries bytea NOT NULL
);
ALTER TABLE mmlite.apply_group ALTER entries SET STORAGE EXTERNAL;
COMMENT ON TABLE mmlite.apply_group IS
  'transactions of an origin that were committed together here, at the time of the last of them';
COMMENT ON COLUMN mmlite.apply_group.xid IS 'of the local transaction, as txid_current() gives it';
COMMENT ON COLUMN mmlite.apply_group.entries IS
  'rows that they wrote, in that order: 8 bytes mmlite.key_hash, 8 bytes commit time at the origin in microseconds since 2000-01-01 UTC, each; of several for one row the last holds';

CREATE FUNCTION mmlite.key_hash(of_table text, key text[]) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
  bytes bytea;
  value text;
  high bigint := 2166136261;
  low bigint := 2166136261;
BEGIN
  FOREACH value IN ARRAY of_table || key LOOP
    bytes := convert_to(value, 'UTF8');
    -- The length first, so that no two keys are the same bytes.
    bytes := int4send(length(bytes)) || bytes;
    FOR i IN 0..length(bytes) - 1 LOOP
      high := ((high # get_byte(bytes, i)) * 16777619) & 4294967295;
      low := ((low # get_byte(bytes, i)) * 1540483477) & 4294967295;
      low := low # (low >> 15);
    END LOOP;
  END LOOP;
  RETURN (high << 32) | low;
END $$;

CREATE FUNCTION mmlite.version_timestamp(of_xmin xid, hash bigint) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
  newest bigint := txid_snapshot_xmax(txid_current_snapshot());
  -- Of the full transaction ids with these 32 bits the latest that is not in the future.
  full_xid bigint := (newest & -4294967296) | of_xmin::text::bigint;
  list bytea;
  exact timestamptz;
BEGIN
  IF full_xid > newest THEN full_xid := full_xid - 4294967296; END IF;
  SELECT entries || '' INTO list FROM mmlite.apply_group WHERE xid = full_xid;
  IF list IS NOT NULL THEN
    SELECT timestamptz '2000-01-01 00:00:00Z' + ('x' || encode(substring(list, i * 16 + 9, 8), 'hex'))::bit(64)::bigint
             * interval '1 microsecond' INTO exact
      FROM generate_series(0, length(list) / 16 - 1) i
     WHERE substring(list, i * 16 + 1, 8) = int8send(hash) ORDER BY i DESC LIMIT 1;
  END IF;
  RETURN coalesce(exact, pg_xact_commit_timestamp(of_xmin));
END $$;
COMMENT ON FUNCTION mmlite.version_timestamp IS
  'when the version of a row was committed at its origin: by its xmin and the hash of its key';`,

  CONFLICT_STEP,

  QUARANTINE_STEP,

  TOMBSTONE_STEP,

  GONE_STEP,

  CONFLICT_RECORD_STEP,

  RETRY_STEP,

  SECOND_LOOK_STEP,

  `CREATE TABLE mmlite.job (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  type text NOT NULL,
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  input jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  result json,
  error json
);
COMMENT ON TABLE mmlite.job IS 'long work that an operator has asked this node for, and what came of it';`,

  TRUNCATE_STEP,

  `ALTER TABLE mmlite.apply_group ADD COLUMN lasting boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN mmlite.apply_group.lasting IS
  'rows of several times that a repair wrote: kept while their versions can be asked for, as the commit record does not name their node';`,

  COPY_STEP,

  LEAVE_STEP,

  LATER_TABLES_STEP,

  GO_LIVE_STEP,

  `ALTER TABLE mmlite.job ADD COLUMN created jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN mmlite.job.created IS
  'tables and the like that the job has made, written in the transaction that made them';`,

  `ALTER TABLE mmlite.peer ADD COLUMN away_counted double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN mmlite.peer.away_counted IS
  'of the time since away_since, seconds in which mmlite ran here and saw it; begins with 0 each time a peer goes';`,

  // Hashes cannot be made smaller; trying took a twentieth of the time that a million rows take.
  "ALTER TABLE mmlite.written ALTER hashes SET STORAGE EXTERNAL;",
];

/** The SQL that brings a database with `done` steps up to this version, one transaction per element. */
export function schemaStatements(done: number): readonly string[] {
  return STEPS.slice(done).map((sql, i) =>
    `${sql}\nINSERT INTO mmlite.schema_step (step) VALUES (${done + i + 1});`
  );
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
