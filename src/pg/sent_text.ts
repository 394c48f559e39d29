/**
 * The text of a value in SQL as replication sends it: by the output function of its type.
 *
 * A cast to text is another thing for some types: it takes the blanks off a `char(n)`, spells booleans out, adds the
 * netmask to an `inet`, and may be one that somebody has made. `concat` takes the output function, like replication,
 * under the session's settings: these have to be those of replication (`VALUE_SETTINGS`).
 */

/** The text of a value that is not NULL, such as one of a key; of NULL it is empty. */
export function sentText(value: string): string {
  return `pg_catalog.concat(${value})`;
}

/** The text of a value, NULL of NULL; a composite of NULLs is not NULL to `num_nulls`. */
export function sentTextOrNull(value: string): string {
  return `CASE pg_catalog.num_nulls(${value}) WHEN 0 THEN ${sentText(value)} END`;
}
