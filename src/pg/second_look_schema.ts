/**
 * The step of schema `mmlite` for what a transaction that applies cannot see in time: rows of local transactions that
 * are not committed yet, or wait for a synchronous standby, where nothing in PostgreSQL waits for them. Twins are rows
 * with one key, which a deferrable key does not keep apart in a session that applies.
 */
import { CONFLICT_STOPS_SQLSTATE } from "./conflict_schema.ts";

/** SQLSTATE of the notice by which `mmlite.note_second_look` tells that there is something to look at again. */
export const SECOND_LOOK_SQLSTATE = "MM012";

/** The SQL of the step, but for the note that it is done. */
export const SECOND_LOOK_STEP = `CREATE TABLE mmlite.second_look (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  found_in text NOT NULL,
  found_by text NOT NULL,
  key_columns text[] NOT NULL,
  key text[] NOT NULL,
  hash bigint NOT NULL,
  origin text NOT NULL,
  at timestamptz NOT NULL,
  change text NOT NULL,
  newer text NOT NULL,
  older text NOT NULL,
  horizon bigint
);
COMMENT ON TABLE mmlite.second_look IS
  'applied changes to be compared with their rows again, once every transaction has ended that was under way and may have written them';
COMMENT ON COLUMN mmlite.second_look.found_in IS 'the table in SQL, as t';
COMMENT ON COLUMN mmlite.second_look.found_by IS 'the row by its key in SQL, as a condition on t; $1 is the column key';
COMMENT ON COLUMN mmlite.second_look.newer IS 'what becomes of the change beside an older row; older: beside a newer one';
COMMENT ON COLUMN mmlite.second_look.horizon IS 'the last transaction that may have been under way; null before the first look';

CREATE FUNCTION mmlite.others_write(of_table regclass) RETURNS boolean LANGUAGE sql AS $$
  WITH RECURSIVE tree (oid) AS (
    SELECT of_table::oid UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i, tree WHERE i.inhparent = tree.oid
  )
  SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
       AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
       AND l.relation IN (SELECT tree.oid FROM tree))
$$;
COMMENT ON FUNCTION mmlite.others_write IS
  'whether another transaction that has not ended yet may have written to a table or a partition of it';

CREATE FUNCTION mmlite.note_second_look(
  of_schema text, of_table text, found_in text, found_by text, of_columns text[], of_key text[], of_hash bigint,
  of_node text, of_at timestamptz, of_change text, newer_resolution text, older_resolution text
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mmlite.second_look (table_schema, table_name, found_in, found_by, key_columns, key, hash, origin, at,
      change, newer, older)
    VALUES (of_schema, of_table, found_in, found_by, of_columns, of_key, of_hash, of_node, of_at,
      of_change, newer_resolution, older_resolution);
  RAISE NOTICE 'to be looked at again' USING ERRCODE = '${SECOND_LOOK_SQLSTATE}';
  RETURN true;
END $$;
COMMENT ON FUNCTION mmlite.note_second_look IS 'notes a change that is to be compared with its row again; true';

CREATE FUNCTION mmlite.mark_diverged(of_schema text, of_table text, of_reason text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO mmlite.diverged (table_schema, table_name, reason) VALUES (of_schema, of_table, of_reason)
    ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION mmlite.settle_twins(
  of_schema text, of_table text, found_in text, found_by text, of_columns text[], of_key text[], of_hash bigint,
  of_node text, of_at timestamptz, of_change text, newer_resolution text, older_resolution text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  -- What this transaction has written comes first, or what the change has, else the newest.
  twins text := format('SELECT t.tableoid AS part, t.ctid AS place, to_json(t.*) AS content,
      w.is_own, CASE WHEN w.is_own THEN $3 ELSE v.at END AS at, CASE WHEN w.is_own THEN $4 ELSE v.node END AS node
    FROM %s, LATERAL (SELECT t.xmin::text = $5 AS is_own) w, LATERAL mmlite.row_version(t.xmin, $2) v WHERE %s
    ORDER BY w.is_own DESC, CASE WHEN w.is_own THEN t.cmin::text::bigint END DESC, (v.at = $3 AND v.node = $4) IS TRUE DESC, v.at DESC NULLS LAST, v.node COLLATE "C" DESC, t.ctid DESC',
    found_in, found_by);
  remove text := format('DELETE FROM %s WHERE t.ctid = $1 AND t.tableoid = $2', found_in);
  own_xmin text := (txid_current() & 4294967295)::text;
  one record;
  first record;
  count integer := 0;
  stays boolean := true;
  resolution text;
BEGIN
  -- Whoever changes one of them has ended after this, and what follows sees it.
  EXECUTE format('SELECT FROM %s WHERE %s FOR UPDATE', found_in, found_by) USING of_key;
  FOR one IN EXECUTE twins USING of_key, of_hash, of_at, of_node, own_xmin LOOP
    count := count + 1;
    IF count = 1 THEN
      first := one;
      CONTINUE;
    END IF;
    CONTINUE WHEN one.is_own;
    resolution := CASE WHEN one.at IS NULL OR mmlite.newer(first.at, first.node, one.at, one.node)
      THEN newer_resolution ELSE older_resolution END;
    stays := stays AND resolution = 'applied';
    EXIT WHEN resolution = 'error';
  END LOOP;
  IF count < 2 THEN RETURN false; END IF;
  resolution := CASE WHEN stays THEN 'applied' WHEN resolution = 'error' THEN 'error' ELSE 'skipped' END;
  count := 0;
  FOR one IN EXECUTE twins USING of_key, of_hash, of_at, of_node, own_xmin LOOP
    count := count + 1;
    CONTINUE WHEN count = 1;
    -- What this transaction has written again.
    IF one.is_own THEN
      EXECUTE remove USING one.place, one.part;
      CONTINUE;
    END IF;
    PERFORM mmlite.note_conflict(CASE of_change WHEN 'insert' THEN 'insert_exists' ELSE 'update_exists' END, resolution,
      of_change, of_schema, of_table, (SELECT json_object_agg(c, one.content->c) FROM unnest(of_columns) AS c),
      one.content, one.node, one.at, first.content, coalesce(first.node, ''), coalesce(first.at, of_at));
    IF one.at = first.at AND one.node = first.node AND one.content::text <> first.content::text THEN
      PERFORM mmlite.mark_diverged(of_schema, of_table, format('two rows of node %s had one key in one version', one.node));
    END IF;
    IF stays THEN EXECUTE remove USING one.place, one.part; END IF;
  END LOOP;
  IF stays THEN RETURN true; END IF;
  EXECUTE remove USING first.place, first.part;
  -- Of more than two, the rest is left.
  PERFORM mmlite.settle_twins(of_schema, of_table, found_in, found_by, of_columns, of_key, of_hash, of_node, of_at,
    of_change, newer_resolution, older_resolution);
  RETURN true;
END $$;
COMMENT ON FUNCTION mmlite.settle_twins IS
  'leaves one of the rows that have a key, as after any other conflict, and notes that; whether there were several';

CREATE FUNCTION mmlite.remove_older(
  of_schema text, of_table text, found_in text, found_by text, of_columns text[], of_key text[], of_hash bigint,
  of_node text, of_at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  gone record;
  there record;
BEGIN
  FOR gone IN EXECUTE format('DELETE FROM %s WHERE %s AND mmlite.compare_version(t.xmin, $2, $3, $4, ''-infinity'') = 1
      RETURNING to_json(t.*) AS content, t.xmin AS version', found_in, found_by)
    USING of_key, of_hash, of_at, of_node LOOP
    SELECT * INTO there FROM mmlite.row_version(gone.version, of_hash);
    PERFORM mmlite.note_conflict('delete_origin_differs', 'applied', 'delete', of_schema, of_table,
      (SELECT json_object_agg(c, gone.content->c) FROM unnest(of_columns) AS c),
      gone.content, there.node, there.at, NULL, of_node, of_at);
  END LOOP;
END $$;
COMMENT ON FUNCTION mmlite.remove_older IS
  'deletes a row that another node has deleted later, before it could be seen here';

CREATE FUNCTION mmlite.look_again() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  -- Every transaction before this one is over, and what follows sees it.
  over bigint := txid_snapshot_xmin(txid_current_snapshot());
  one mmlite.second_look;
  ended bigint[] := '{}';
BEGIN
  UPDATE mmlite.second_look SET horizon = txid_current() WHERE horizon IS NULL;
  FOR one IN SELECT * FROM mmlite.second_look ORDER BY id LOOP
    BEGIN
      IF one.change = 'delete' THEN
        PERFORM mmlite.remove_older(one.table_schema, one.table_name, one.found_in, one.found_by, one.key_columns,
          one.key, one.hash, one.origin, one.at);
      ELSE
        PERFORM mmlite.settle_twins(one.table_schema, one.table_name, one.found_in, one.found_by, one.key_columns,
          one.key, one.hash, one.origin, one.at, one.change, one.newer, one.older);
      END IF;
      IF one.horizon < over THEN ended := ended || one.id; END IF;
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected THEN
        NULL; -- Whoever holds the row ends some time.
      WHEN SQLSTATE '${CONFLICT_STOPS_SQLSTATE}' OR syntax_error_or_access_rule_violation OR data_exception THEN
        PERFORM mmlite.mark_diverged(one.table_schema, one.table_name, format(
          'rows of node %s that came while a local transaction wrote to the table could not be compared', one.origin));
        ended := ended || one.id;
    END;
  END LOOP;
  DELETE FROM mmlite.second_look s WHERE s.id = ANY (ended);
  RETURN (SELECT count(*) FROM mmlite.second_look);
END $$;
COMMENT ON FUNCTION mmlite.look_again IS
  'settles what could not be seen when it was applied; how much is to be looked at once more';
`;
