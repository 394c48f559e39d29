/**
 * The table `mmlite.table_pattern`: what was said of patterns of tables through the API.
 */
import type { Query } from "./query.ts";

/** What is said of a pattern: tables that match it are taken or left out, or what the file says of it does not hold. */
export type PatternWord = "include" | "exclude" | "removed";

/** A row of `mmlite.table_pattern`. */
export interface TablePatternRow {
  readonly pattern: string;
  readonly word: PatternWord;
}

/** Every pattern that something was said of, by its text. */
export async function readTablePatterns(query: Query): Promise<TablePatternRow[]> {
  const rows = await query('SELECT pattern, kind FROM mmlite.table_pattern ORDER BY pattern COLLATE "C"');
  return rows.map(({ pattern, kind }) => ({ pattern: pattern!, word: kind as PatternWord }));
}

/** Says something of a pattern, or with null nothing any more. */
export async function saveTablePattern(
  query: Query,
  { pattern, word }: { readonly pattern: string; readonly word: PatternWord | null },
): Promise<void> {
  if (word === null) {
    await query("DELETE FROM mmlite.table_pattern WHERE pattern = $1", [pattern]);
    return;
  }
  await query(
    `INSERT INTO mmlite.table_pattern (pattern, kind) VALUES ($1, $2)
     ON CONFLICT (pattern) DO UPDATE SET kind = excluded.kind, changed_at = clock_timestamp()`,
    [pattern, word],
  );
}
