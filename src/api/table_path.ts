/**
 * Tables as they stand in paths and queries of the API.
 */
import { z } from "@hono/zod-openapi";
import { MmliteError } from "../errors.ts";
import { parseTableName, type TableName } from "../table_name.ts";

/** The text of a table's name; {@link requireTableName} reads it. */
export const TableText = z.string().openapi({
  description: "schema and name with a dot between; a part that holds a dot stands in double quotes",
  example: "public.users",
});

/** The path of one table. */
export const TablePath = z.strictObject({ table: TableText });

/** Splits `schema.table`; throws `invalid_input`. */
export function requireTableName(given: string): TableName {
  const table = parseTableName(given);
  if (table !== null) return table;
  throw new MmliteError(
    "invalid_input",
    `Cannot find table ${JSON.stringify(given)}: expected SCHEMA.TABLE`,
    {
      hint: "Put a part that holds a dot or a double quote in double quotes, each inner one doubled",
    },
  );
}
