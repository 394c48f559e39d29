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
