/**
 * What tables hold, in a line that can be compared.
 */
import type { Database } from "./marks.ts";

/** A digest of all public tables that is independent of the order of rows, of the columns that `like` has as well. */
export async function digest({ server, database }: Database, like: Database): Promise<string> {
  const tables = await like.server.sql(
    like.database,
    `SELECT table_name AS name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) AS columns
       FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name`,
  );
  const parts = tables.map(({ name, columns }) =>
    `SELECT '${name}' AS name, count(*), sum(hashtextextended(t::text, 0)) AS digest
       FROM (SELECT ${columns} FROM public.${name}) t`
  );
  return JSON.stringify(await server.sql(database, parts.join(" UNION ALL ")));
}
