/**
 * The step of schema `mmlite` for tables that come later: patterns that were set through the API, and which tables there
 * were when the publications were last looked after.
 */

/** The SQL of the step. */
export const LATER_TABLES_STEP = `CREATE TABLE mmlite.table_pattern (
  pattern text PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('include', 'exclude', 'removed')),
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE mmlite.table_pattern IS
  'what the API has said of patterns of tables; wins over what the file says of the same pattern';

CREATE TABLE mmlite.known_tables (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  oids oid[] NOT NULL
);
COMMENT ON TABLE mmlite.known_tables IS
  'the tables that were there when the publications were last looked after: rows of any other are sent when it is published; no row before the first time';`;
