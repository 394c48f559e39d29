/**
 * The parts of the step that settles conflicts (`conflict_schema.ts`) which note rows that await values: PostgreSQL does
 * not send a large value that an update left as it was, and here the row may have another one. The step of
 * `retry_schema.ts` replaces `mmlite.note_passed_over`.
 */

/** SQLSTATE of the notice by which `mmlite.note_unsent` tells that a row awaits values, and from which node. */
export const UNSENT_SQLSTATE = "MM011";

/** SQL of the table of these rows. */
export const UNSENT_TABLE = `CREATE TABLE mmlite.unsent (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  origin text NOT NULL,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  key_columns text[] NOT NULL,
  key text[] NOT NULL,
  hash bigint NOT NULL,
  at timestamptz NOT NULL
);
CREATE INDEX unsent_row ON mmlite.unsent (origin, hash);
COMMENT ON TABLE mmlite.unsent IS
  'rows that await values: an update came without those that it had left as they were, and other ones are here';
COMMENT ON COLUMN mmlite.unsent.origin IS 'the node that has updated the row, and is asked for it';
COMMENT ON COLUMN mmlite.unsent.at IS 'when that was committed there';`;

/** SQL of the functions that write to it, or that ask whether a row that came for it is to be taken. */
export const UNSENT_FUNCTIONS = `CREATE FUNCTION mmlite.note_unsent(
  of_node text, of_schema text, of_table text, of_columns text[], of_key text[], of_hash bigint, of_at timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM mmlite.unsent u WHERE u.origin = of_node AND u.hash = of_hash AND u.at = of_at
                    AND u.table_schema = of_schema AND u.table_name = of_table) THEN
    INSERT INTO mmlite.unsent (origin, table_schema, table_name, key_columns, key, hash, at)
      VALUES (of_node, of_schema, of_table, of_columns, of_key, of_hash, of_at);
  END IF;
  RAISE NOTICE '%', of_node USING ERRCODE = '${UNSENT_SQLSTATE}';
  RETURN true;
END $$;
COMMENT ON FUNCTION mmlite.note_unsent IS 'notes that a row awaits values from the node that has updated it; true';

CREATE FUNCTION mmlite.note_passed_over(
  local_xmin xid, of_schema text, of_table text, of_columns text[], of_key text[], of_hash bigint, of_node text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(local_xmin, of_hash);
  IF there.node IS NULL OR there.node = of_node OR there.node = mmlite.node_of(0) THEN RETURN false; END IF;
  PERFORM mmlite.note_unsent(there.node, of_schema, of_table, of_columns, of_key, of_hash, there.at);
  RETURN false;
END $$;
COMMENT ON FUNCTION mmlite.note_passed_over IS
  'for a change that is older than the row: a third node that wrote the row may have had its values, and not sent them; false';

CREATE FUNCTION mmlite.takes_fetched(of_xmin xid, hash bigint, at timestamptz, of_node text) RETURNS boolean
  LANGUAGE plpgsql AS $$
DECLARE
  there record;
BEGIN
  SELECT * INTO there FROM mmlite.row_version(of_xmin, hash);
  RETURN there.at IS NULL OR NOT mmlite.newer(there.at, coalesce(there.node, ''), at, of_node);
END $$;
COMMENT ON FUNCTION mmlite.takes_fetched IS 'whether a row is of the version that was fetched, or of an older one';`;
