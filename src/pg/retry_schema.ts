/**
 * The step of schema `mmlite` for changes that come out of their origin's order: those of a transaction that was in
 * quarantine. In a session with `mmlite.out_of_order` they are compared with what their own origin did later as well.
 */

/** The SQL of the step. */
export const RETRY_STEP = `CREATE OR REPLACE FUNCTION mmlite.compare_version(
  of_xmin xid, hash bigint, at timestamptz, of_node text, seen_before timestamptz
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  committed timestamptz := pg_catalog.pg_xact_commit_timestamp(of_xmin);
  there record;
BEGIN
  IF committed IS NULL OR (committed < seen_before AND committed < at) THEN RETURN 0; END IF;
  SELECT * INTO there FROM mmlite.row_version(of_xmin, hash);
  IF there.node = of_node THEN
    -- An origin's own changes come in their order, whatever its clock did, or after all.
    RETURN CASE WHEN current_setting('mmlite.out_of_order', true) = 'on' AND there.at >= at THEN -1 ELSE 0 END;
  END IF;
  RETURN CASE WHEN mmlite.newer(at, of_node, there.at, there.node) THEN 1 ELSE -1 END;
END $$;

CREATE OR REPLACE FUNCTION mmlite.newest_tombstone(
  hash bigint, of_schema text, of_table text, at timestamptz, of_node text,
  OUT deleted_at timestamptz, OUT deleted_by text
) LANGUAGE plpgsql AS $$
DECLARE
  list record;
  found timestamptz;
  wanted bytea := int8send(hash);
  own boolean := coalesce(current_setting('mmlite.out_of_order', true) = 'on', false);
BEGIN
  -- In one statement: while it runs, short lists may become a run. Bytes that are no hash are left to find_entry.
  FOR list IN
    SELECT d.origin, d.entries FROM mmlite.tombstone d
     WHERE d.last_timestamp >= at AND (own OR d.origin <> of_node) AND d.run IS NULL AND position(wanted IN d.entries) > 0
    UNION ALL
    SELECT d.origin, p.entries FROM mmlite.tombstone d, LATERAL (
      SELECT s.entries FROM mmlite.tombstone_piece s WHERE s.run = d.run AND s.first_hash <= wanted
       ORDER BY s.first_hash DESC LIMIT 1) p
     WHERE d.last_timestamp >= at AND (own OR d.origin <> of_node) AND d.run IS NOT NULL AND position(wanted IN p.entries) > 0
  LOOP
    found := mmlite.find_entry(list.entries, hash);
    IF mmlite.newer(found, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := found;
      deleted_by := list.origin;
    END IF;
  END LOOP;
  FOR list IN SELECT t.origin, t.commit_timestamp FROM mmlite.truncation t
               WHERE t.table_schema = of_schema AND t.table_name = of_table AND (own OR t.origin <> of_node) LOOP
    IF mmlite.newer(list.commit_timestamp, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := list.commit_timestamp;
      deleted_by := list.origin;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION mmlite.newest_tombstone IS
  'the newest delete or truncate by another node, or by any where changes come out of their order, that is newer than a change; nulls if there is none';

CREATE OR REPLACE FUNCTION mmlite.note_passed_over(
  local_xmin xid, of_schema text, of_table text, of_columns text[], of_key text[], of_hash bigint, of_node text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(local_xmin, of_hash);
  IF there.node IS NULL OR there.node = mmlite.node_of(0)
    OR (there.node = of_node AND current_setting('mmlite.out_of_order', true) IS DISTINCT FROM 'on') THEN
    RETURN false;
  END IF;
  PERFORM mmlite.note_unsent(there.node, of_schema, of_table, of_columns, of_key, of_hash, there.at);
  RETURN false;
END $$;
COMMENT ON FUNCTION mmlite.note_passed_over IS
  'for a change that is older than the row: whoever wrote the row, on another node, may have had its values, and not sent them; false';`;
