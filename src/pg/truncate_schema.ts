/**
 * What `mmlite.apply_truncate` is made of, and the step of schema `mmlite` by which it knows the rows of a partition by
 * the name of its root.
 */

/** Makes the function; `hash` is the SQL that makes the SQL of a row's hash out of `keys[i]`. */
export function applyTruncate(hash: string): string {
  return `FUNCTION mmlite.apply_truncate(
  of_schemas text[], of_tables text[], prefixes text[], keys text[], restart boolean, at timestamptz, of_node text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- Each table as a statement names it, and which of its rows stay.
  tables text[];
  stay text[];
  some_stay boolean := false;
  stays boolean;
BEGIN
  FOR i IN 1..array_length(of_tables, 1) LOOP
    tables[i] := format('%s%I.%I', prefixes[i], of_schemas[i], of_tables[i]);
    stay[i] := format('pg_catalog.pg_xact_commit_timestamp(t.xmin) >= $1 AND mmlite.compare_version(t.xmin, %s, $1, $2, ''-infinity'') < 0',
      ${hash});
  END LOOP;
  EXECUTE 'LOCK TABLE ' || array_to_string(tables, ', ') || ' IN ACCESS EXCLUSIVE MODE';
  FOR i IN 1..array_length(of_tables, 1) LOOP
    INSERT INTO mmlite.truncation AS c (table_schema, table_name, origin, commit_timestamp)
      VALUES (of_schemas[i], of_tables[i], of_node, at)
      ON CONFLICT (table_schema, table_name, origin) DO UPDATE
        SET commit_timestamp = greatest(c.commit_timestamp, excluded.commit_timestamp);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s AS t WHERE %s)', tables[i], stay[i]) INTO stays USING at, of_node;
    IF stays THEN
      some_stay := true;
      PERFORM mmlite.note_conflict('delete_origin_differs', 'applied', 'truncate', of_schemas[i], of_tables[i], NULL,
        NULL, NULL, NULL, NULL, of_node, at);
    END IF;
  END LOOP;
  IF NOT some_stay THEN
    EXECUTE 'TRUNCATE TABLE ' || array_to_string(tables, ', ') || CASE WHEN restart THEN ' RESTART IDENTITY' ELSE '' END;
    RETURN;
  END IF;
  FOR i IN 1..array_length(of_tables, 1) LOOP
    EXECUTE format('DELETE FROM %s AS t WHERE (%s) IS NOT TRUE', tables[i], stay[i]) USING at, of_node;
  END LOOP;
END $$;
`;
}

/** The SQL of the step: `keys` are the rows' hashes in SQL now, `0` where there is no key. */
export const TRUNCATE_STEP = `CREATE OR REPLACE ${applyTruncate("keys[i]")}`;
