/**
 * Names of tables as people write them: `app.orders`, `app."odd.name"`. Case is kept as it is.
 */

/** A table's name in its database. */
export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** What is expected of a table's name, to stand behind "expected". */
export const TABLE_NAME_RULE = 'SCHEMA.TABLE, such as app.orders or app."odd.name"';

const IDENTIFIER = `("(?:[^"]|"")+"|[^".]+)`;
const TABLE_NAME = new RegExp(`^${IDENTIFIER}\\.${IDENTIFIER}$`);

/** A name as a key of maps and sets. */
export function tableKey({ schema, name }: TableName): string {
  return `${schema}\0${name}`;
}

/** Splits `schema.table`; in double quotes, a part may hold dots and doubled quotes. Null for what is no name. */
export function parseTableName(text: string): TableName | null {
  const match = TABLE_NAME.exec(text);
  return match === null ? null : { schema: unquote(match[1]), name: unquote(match[2]) };
}

/** A name as text for people, quoted where a pattern would need it: `app.orders`, `app."odd.name"`. */
export function formatTableName({ schema, name }: TableName): string {
  return `${formatPart(schema)}.${formatPart(name)}`;
}

function formatPart(part: string): string {
  return /^[^\s".*?]+$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`;
}

function unquote(part: string): string {
  return part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part;
}
