/**
 * The one shape in which catalog and bookkeeping SQL is run, whichever driver is beneath.
 */
import type pg from "pg";

/** A result row: every value in PostgreSQL's text form, or null. */
export type Row = Readonly<Record<string, string | null>>;

/** Runs one statement. Without parameters the text goes by the simple protocol, so it may hold several. */
export type Query = (text: string, params?: readonly unknown[]) => Promise<readonly Row[]>;

/** A `Query` over one `pg` client whose type parsers return text, as `openClient` makes them. */
export function queryWith(client: pg.Client): Query {
  return async (text, params) => {
    const result = await client.query(text, params === undefined ? undefined : [...params]);
    return (Array.isArray(result) ? result[result.length - 1] : result).rows as Row[];
  };
}
