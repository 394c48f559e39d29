/**
 * The step of schema `mmlite` that settles conflicts: tombstones, and what is kept of conflicts.
 */
import { ROW_VERSION_FUNCTIONS } from "./row_version_schema.ts";
import { applyTruncate } from "./truncate_schema.ts";
import { UNSENT_FUNCTIONS, UNSENT_TABLE } from "./unsent_schema.ts";

/** SQLSTATE of the notice by which `mmlite.settle` reports a conflict: its type and its resolution. */
export const CONFLICT_SQLSTATE = "MM010";
/** SQLSTATE of `mmlite.settle` where the policy is to stop. */
export const CONFLICT_STOPS_SQLSTATE = "MM003";
/** SQLSTATE of the guards of statements for many rows: what they met must be settled row by row. */
export const SETTLE_ROWS_SQLSTATE = "MM002";

/** SQLSTATE of `mmlite.begin_apply` when the compare-and-set of the position finds another position or epoch. */
export const POSITION_MOVED_SQLSTATE = "MM001";
/** First key of the advisory lock that appliers take before they commit; the second is 0. */
export const COMMIT_LOCK = 1_836_870_245;

/** The hash of a row in SQL, by the table's own name. */
const HASH_OF_KEYS =
  "CASE WHEN keys[i] = '' THEN '0' ELSE format('mmlite.key_hash(%L, ARRAY[%s])', of_schemas[i] || '.' || of_tables[i], keys[i]) END";

/** The SQL of the step. */
export const CONFLICT_STEP = `-- What is there has its entries in the order of writing.
TRUNCATE mmlite.apply_group;
CREATE INDEX apply_group_xid ON mmlite.apply_group (xid);
COMMENT ON COLUMN mmlite.apply_group.entries IS
  '8 bytes mmlite.key_hash, 8 bytes commit time at the origin in microseconds since 2000-01-01 UTC, each; ordered by hash, one per row';
DROP FUNCTION mmlite.note_conflict(text);

CREATE TABLE mmlite.tombstone (
  origin text NOT NULL,
  last_timestamp timestamptz NOT NULL,
  entries bytea NOT NULL
);
ALTER TABLE mmlite.tombstone ALTER entries SET STORAGE EXTERNAL;
CREATE INDEX tombstone_last_timestamp ON mmlite.tombstone (last_timestamp);
COMMENT ON TABLE mmlite.tombstone IS
  'rows that were deleted, here or elsewhere, until nothing older can come; one line per transaction or group';
COMMENT ON COLUMN mmlite.tombstone.entries IS
  '8 bytes mmlite.key_hash, 8 bytes commit time of the delete in microseconds since 2000-01-01 UTC, each; ordered by hash, one per row';

CREATE TABLE mmlite.truncation (
  table_schema text NOT NULL,
  table_name text NOT NULL,
  origin text NOT NULL,
  commit_timestamp timestamptz NOT NULL,
  PRIMARY KEY (table_schema, table_name, origin)
);
COMMENT ON TABLE mmlite.truncation IS 'the last truncate of a table by each node: rows older than it are gone';

CREATE TABLE mmlite.conflict (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  table_schema text NOT NULL,
  table_name text NOT NULL,
  type text NOT NULL,
  resolution text NOT NULL,
  change text NOT NULL,
  key jsonb,
  local_row jsonb,
  local_origin text,
  local_timestamp timestamptz,
  remote_row jsonb,
  remote_origin text NOT NULL,
  remote_timestamp timestamptz NOT NULL,
  remote_lsn pg_lsn
);
CREATE INDEX conflict_noted_at ON mmlite.conflict (noted_at);
COMMENT ON TABLE mmlite.conflict IS 'changes of other nodes that met another state here than at their origin';
COMMENT ON COLUMN mmlite.conflict.type IS 'as PostgreSQL 18 names them';
COMMENT ON COLUMN mmlite.conflict.resolution IS 'applied: the change was written; skipped: what was here stayed';
COMMENT ON COLUMN mmlite.conflict.remote_lsn IS 'end of the transaction in the WAL of its origin';

${UNSENT_TABLE}

CREATE TABLE mmlite.diverged (
  table_schema text NOT NULL,
  table_name text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  reason text NOT NULL,
  PRIMARY KEY (table_schema, table_name)
);
COMMENT ON TABLE mmlite.diverged IS 'tables of which nodes may hold different rows, until an operator has seen to it';

CREATE TABLE mmlite.table_policy (
  table_schema text NOT NULL,
  table_name text NOT NULL,
  policy jsonb NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (table_schema, table_name)
);
COMMENT ON TABLE mmlite.table_policy IS 'how conflicts of a table are settled, as set through the API; wins over the file';

${ROW_VERSION_FUNCTIONS}

CREATE FUNCTION mmlite.newest_tombstone(
  hash bigint, of_schema text, of_table text, at timestamptz, of_node text,
  OUT deleted_at timestamptz, OUT deleted_by text
) LANGUAGE plpgsql AS $$
DECLARE
  list record;
  found timestamptz;
BEGIN
  FOR list IN SELECT d.origin, d.entries FROM mmlite.tombstone d WHERE d.last_timestamp >= at AND d.origin <> of_node LOOP
    found := mmlite.find_entry(list.entries, hash);
    IF mmlite.newer(found, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := found;
      deleted_by := list.origin;
    END IF;
  END LOOP;
  FOR list IN SELECT t.origin, t.commit_timestamp FROM mmlite.truncation t
               WHERE t.table_schema = of_schema AND t.table_name = of_table AND t.origin <> of_node LOOP
    IF mmlite.newer(list.commit_timestamp, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := list.commit_timestamp;
      deleted_by := list.origin;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION mmlite.newest_tombstone IS
  'the newest delete or truncate by another node that is newer than a change; nulls if there is none';

CREATE FUNCTION mmlite.note_conflict(
  type text, resolution text, change text, of_schema text, of_table text, key jsonb,
  local_row jsonb, local_node text, local_at timestamptz, remote_row jsonb, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF resolution = 'error' THEN
    RAISE EXCEPTION 'conflict %', type
      USING ERRCODE = '${CONFLICT_STOPS_SQLSTATE}', SCHEMA = of_schema, TABLE = of_table;
  END IF;
  INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, key, local_row, local_origin,
    local_timestamp, remote_row, remote_origin, remote_timestamp, remote_lsn)
  SELECT of_schema, of_table, type, resolution, change, key, local_row, local_node,
    local_at, remote_row, of_node, at, (SELECT p.lsn FROM mmlite.progress p WHERE p.origin = of_node);
  RAISE NOTICE '% %', type, resolution USING ERRCODE = '${CONFLICT_SQLSTATE}';
  RETURN resolution = 'applied';
END $$;

CREATE FUNCTION mmlite.settle(
  type text, resolution text, change text, of_schema text, of_table text, key jsonb,
  local_row jsonb, local_xmin xid, hash bigint, remote_row jsonb, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(local_xmin, hash);
  RETURN mmlite.note_conflict(type, resolution, change, of_schema, of_table, key,
    local_row, there.node, there.at, remote_row, of_node, at);
END $$;
COMMENT ON FUNCTION mmlite.settle IS 'notes a conflict with a row; whether the change is to be written';

CREATE FUNCTION mmlite.settle_exclusion(
  type text, resolution text, change text, of_schema text, of_table text, key jsonb,
  local_row jsonb, local_xmin xid, hash bigint, remote_row jsonb, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  written boolean := mmlite.settle(type, resolution, change, of_schema, of_table, key,
    local_row, local_xmin, hash, remote_row, of_node, at);
BEGIN
  INSERT INTO mmlite.diverged (table_schema, table_name, reason)
    VALUES (of_schema, of_table, format('rows of several nodes may not stand beside each other (%s of node %s)', type, of_node))
    ON CONFLICT DO NOTHING;
  RETURN written;
END $$;
COMMENT ON FUNCTION mmlite.settle_exclusion IS
  'notes a conflict with a row of another key, of which only one can stay: nodes may come to keep different ones';

CREATE FUNCTION mmlite.settle_missing(
  type text, resolution text, deleted_resolution text, change text, of_schema text, of_table text, key jsonb,
  hash bigint, remote_row jsonb, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  gone record;
BEGIN
  SELECT * INTO gone FROM mmlite.newest_tombstone(hash, of_schema, of_table, at, of_node);
  IF gone.deleted_at IS NOT NULL THEN
    RETURN mmlite.note_conflict('update_deleted', deleted_resolution, change, of_schema, of_table, key,
      NULL, gone.deleted_by, gone.deleted_at, remote_row, of_node, at);
  END IF;
  IF type IS NULL THEN RETURN true; END IF;
  RETURN mmlite.note_conflict(type, resolution, change, of_schema, of_table, key,
    NULL, NULL, NULL, remote_row, of_node, at);
END $$;
COMMENT ON FUNCTION mmlite.settle_missing IS
  'for a change of a row that is not here: whether it is to be written, or a delete is newer; notes either';

CREATE FUNCTION mmlite.meets(entries bytea, of_origin text, hashes bigint[], at timestamptz, of_node text) RETURNS boolean
  LANGUAGE sql STABLE SET enable_hashjoin = on AS $$
  SELECT EXISTS (
    SELECT FROM unnest(hashes) AS h(hash) JOIN (
      SELECT ('x' || encode(substring(list, i * 16 + 1, 8), 'hex'))::bit(64)::bigint AS hash,
             timestamptz '2000-01-01 00:00:00Z'
               + ('x' || encode(substring(list, i * 16 + 9, 8), 'hex'))::bit(64)::bigint * interval '1 microsecond' AS deleted_at
        FROM (SELECT entries || '' AS list OFFSET 0) AS detoasted, generate_series(0, length(list) / 16 - 1) AS i
    ) AS e ON e.hash = h.hash WHERE mmlite.newer(e.deleted_at, of_origin, at, of_node))
$$;
COMMENT ON FUNCTION mmlite.meets IS 'whether one of the rows with these hashes is among deleted ones, later than a time';

CREATE UNLOGGED TABLE mmlite.written (xid bigint NOT NULL, hashes bigint[] NOT NULL);
COMMENT ON TABLE mmlite.written IS 'hashes of the rows that a long transaction has written, until it ends';

CREATE OR REPLACE FUNCTION mmlite.begin_apply(
  of_origin text, from_lsn pg_lsn, to_lsn pg_lsn, in_epoch bigint, at_commit timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- Where this session left the row. By its key it is found only past every older version of it, and while a
  -- snapshot is open there is one more with each transaction. Only a scan by the key removes them: every 1,000th.
  place tid := CASE WHEN random() > 0.001 THEN nullif(current_setting('mmlite.place', true), '')::tid END;
BEGIN
  -- At the start: what the transaction saw from its first statement on.
  IF txid_current_if_assigned() IS NULL THEN
    PERFORM set_config('mmlite.snapshot', txid_current_snapshot()::text, true);
  END IF;
  UPDATE mmlite.progress SET lsn = to_lsn, commit_timestamp = coalesce(at_commit, commit_timestamp)
   WHERE ctid = place AND origin = of_origin AND lsn = from_lsn AND epoch = in_epoch RETURNING ctid INTO place;
  IF NOT FOUND THEN
    UPDATE mmlite.progress SET lsn = to_lsn, commit_timestamp = coalesce(at_commit, commit_timestamp)
     WHERE origin = of_origin AND lsn = from_lsn AND epoch = in_epoch RETURNING ctid INTO place;
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'position of origin % is not % in epoch %', of_origin, from_lsn, in_epoch
      USING ERRCODE = '${POSITION_MOVED_SQLSTATE}';
  END IF;
  PERFORM set_config('mmlite.place', place::text, false);
END $$;

CREATE FUNCTION mmlite.require_undisturbed(
  hashes bigint[], at timestamptz, of_node text, since_begin boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- Statements for one row have looked for what was noted before.
  seen txid_snapshot := CASE WHEN since_begin THEN current_setting('mmlite.snapshot') ELSE '1:1:' END;
BEGIN
  -- Until the commit: of two that meet in a row that is not here, the second one sees what the first did.
  PERFORM pg_advisory_xact_lock(${COMMIT_LOCK}, 0);
  IF EXISTS (
    SELECT FROM mmlite.tombstone d
     WHERE d.last_timestamp >= at AND d.origin <> of_node
       AND NOT txid_visible_in_snapshot(mmlite.full_xid(d.xmin), seen)
       AND (mmlite.meets(d.entries, d.origin, hashes, at, of_node) OR EXISTS (
         SELECT FROM mmlite.written w
          WHERE w.xid = txid_current() AND mmlite.meets(d.entries, d.origin, w.hashes, at, of_node)))
  ) OR EXISTS (
    SELECT FROM mmlite.truncation c
     WHERE c.commit_timestamp >= at AND c.origin <> of_node
       AND (cardinality(hashes) > 0 OR EXISTS (SELECT FROM mmlite.written w WHERE w.xid = txid_current()))
       AND NOT txid_visible_in_snapshot(mmlite.full_xid(c.xmin), seen)
  ) THEN
    RAISE EXCEPTION 'rows were deleted on another node meanwhile' USING ERRCODE = '${SETTLE_ROWS_SQLSTATE}';
  END IF;
  IF EXISTS (SELECT FROM mmlite.written) THEN DELETE FROM mmlite.written WHERE xid = txid_current(); END IF;
END $$;
COMMENT ON FUNCTION mmlite.require_undisturbed IS
  'the last thing before a commit: raises if a row that was written is of those that another node has deleted at that time or later; with since_begin, of those alone that another session has noted since the transaction began';

CREATE FUNCTION mmlite.note_deleted(
  of_node text, last_at timestamptz, of_entries bytea, of_schemas text[], of_tables text[], truncated_at timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- Whoever applies has committed before this, or finds it before its own commit.
  PERFORM pg_advisory_xact_lock(${COMMIT_LOCK}, 0);
  IF length(of_entries) > 0 THEN
    INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES (of_node, last_at, of_entries);
  END IF;
  FOR i IN 1..coalesce(array_length(of_tables, 1), 0) LOOP
    INSERT INTO mmlite.truncation AS c (table_schema, table_name, origin, commit_timestamp)
      VALUES (of_schemas[i], of_tables[i], of_node, truncated_at[i])
      ON CONFLICT (table_schema, table_name, origin) DO UPDATE
        SET commit_timestamp = greatest(c.commit_timestamp, excluded.commit_timestamp);
  END LOOP;
END $$;
COMMENT ON FUNCTION mmlite.note_deleted IS 'notes what clients of this node have deleted and truncated';

CREATE ${
  applyTruncate(HASH_OF_KEYS)
}COMMENT ON FUNCTION mmlite.apply_truncate IS 'deletes every row that is older than the truncate';

${UNSENT_FUNCTIONS}`;
