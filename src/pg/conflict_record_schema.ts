/**
 * The step of schema `mmlite` by which conflicts are kept whole and once: rows as json, which holds what jsonb cannot,
 * such as \u0000 and numbers without bounds in values of type json.
 */
import { CONFLICT_SQLSTATE, CONFLICT_STOPS_SQLSTATE } from "./conflict_schema.ts";

/** The SQL of the step. */
export const CONFLICT_RECORD_STEP =
  `ALTER TABLE mmlite.conflict ALTER key TYPE json, ALTER local_row TYPE json,
  ALTER remote_row TYPE json;
DROP FUNCTION mmlite.note_conflict(text, text, text, text, text, jsonb, jsonb, text, timestamptz, jsonb, text, timestamptz);
DROP FUNCTION mmlite.settle(text, text, text, text, text, jsonb, jsonb, xid, bigint, jsonb, text, timestamptz);
DROP FUNCTION mmlite.settle_exclusion(text, text, text, text, text, jsonb, jsonb, xid, bigint, jsonb, text, timestamptz);
DROP FUNCTION mmlite.settle_missing(text, text, text, text, text, text, jsonb, bigint, jsonb, text, timestamptz);

CREATE FUNCTION mmlite.note_conflict(
  type text, resolution text, change text, of_schema text, of_table text, key json,
  local_row json, local_node text, local_at timestamptz, remote_row json, of_node text, at timestamptz,
  once boolean DEFAULT false
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  again text := '';
BEGIN
  IF once THEN
    DELETE FROM mmlite.conflict c
     WHERE c.noted_at >= statement_timestamp() AND c.xmin::text::bigint = txid_current() & 4294967295
       AND c.table_schema = of_schema AND c.table_name = of_table;
    IF FOUND THEN again := ' again'; END IF;
  END IF;
  IF resolution = 'error' THEN
    RAISE EXCEPTION 'conflict %', type
      USING ERRCODE = '${CONFLICT_STOPS_SQLSTATE}', SCHEMA = of_schema, TABLE = of_table;
  END IF;
  INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, key, local_row, local_origin,
    local_timestamp, remote_row, remote_origin, remote_timestamp, remote_lsn)
  SELECT of_schema, of_table, type, resolution, change, key, local_row, local_node,
    local_at, remote_row, of_node, at, (SELECT p.lsn FROM mmlite.progress p WHERE p.origin = of_node);
  RAISE NOTICE '% %', type, resolution || again USING ERRCODE = '${CONFLICT_SQLSTATE}';
  RETURN resolution = 'applied';
END $$;
COMMENT ON FUNCTION mmlite.note_conflict IS
  'notes a conflict; with once the statement is of one change, and what it noted before was of a row that another session has changed while this one waited for its lock';

CREATE FUNCTION mmlite.settle(
  type text, resolution text, change text, of_schema text, of_table text, key json,
  local_row json, local_xmin xid, hash bigint, remote_row json, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(local_xmin, hash);
  RETURN mmlite.note_conflict(type, resolution, change, of_schema, of_table, key,
    local_row, there.node, there.at, remote_row, of_node, at, true);
END $$;
COMMENT ON FUNCTION mmlite.settle IS 'notes a conflict with a row; whether the change is to be written';

CREATE FUNCTION mmlite.settle_exclusion(
  type text, resolution text, change text, of_schema text, of_table text, key json,
  local_row json, local_xmin xid, hash bigint, remote_row json, of_node text, at timestamptz, new_hash bigint,
  removal text, new_key text[], old_key text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(local_xmin, hash);
  INSERT INTO mmlite.diverged (table_schema, table_name, reason)
    VALUES (of_schema, of_table, format('rows of several nodes may not stand beside each other (%s of node %s)', type, of_node))
    ON CONFLICT DO NOTHING;
  -- Whichever goes, older versions of it must not come again.
  IF resolution = 'applied' AND there.node IS NOT NULL THEN
    INSERT INTO mmlite.tombstone (origin, last_timestamp, entries)
      VALUES (there.node, there.at, int8send(hash) || timestamptz_send(there.at));
  ELSIF removal IS NOT NULL THEN
    EXECUTE removal USING new_key, old_key, at, of_node;
    INSERT INTO mmlite.tombstone (origin, last_timestamp, entries)
      VALUES (of_node, at, int8send(new_hash) || timestamptz_send(at));
  END IF;
  RETURN mmlite.note_conflict(type, resolution, change, of_schema, of_table, key,
    local_row, there.node, there.at, remote_row, of_node, at);
END $$;
COMMENT ON FUNCTION mmlite.settle_exclusion IS
  'notes a conflict with a row of another key, of which only one can stay: nodes may come to keep different ones; where the change is passed over because that row is newer, removal is what removes the row that it is of';

CREATE FUNCTION mmlite.settle_missing(
  type text, resolution text, deleted_resolution text, change text, of_schema text, of_table text, key json,
  hash bigint, remote_row json, of_node text, at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  gone record;
BEGIN
  SELECT * INTO gone FROM mmlite.newest_tombstone(hash, of_schema, of_table, at, of_node);
  IF gone.deleted_at IS NOT NULL THEN
    RETURN mmlite.note_conflict('update_deleted', deleted_resolution, change, of_schema, of_table, key,
      NULL, gone.deleted_by, gone.deleted_at, remote_row, of_node, at, true);
  END IF;
  IF type IS NULL THEN RETURN true; END IF;
  RETURN mmlite.note_conflict(type, resolution, change, of_schema, of_table, key,
    NULL, NULL, NULL, remote_row, of_node, at, true);
END $$;
COMMENT ON FUNCTION mmlite.settle_missing IS
  'for a change of a row that is not here: whether it is to be written, or a delete is newer; notes either';`;
