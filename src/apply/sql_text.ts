/**
 * The parts that statements for a relation are put together from: names, parameters, and how a row is found and set.
 * Pure text.
 */
import { sentText, sentTextOrNull } from "../pg/sent_text.ts";
import type { MappedColumn, MappedRelation, MatchKey } from "./relation_map.ts";

/** Which of a change's tuples a parameter comes from, or that it is of the change's version. */
export type ParameterSide = "old" | "new" | "version";

/** Where a parameter's value comes from: a column of one of the change's tuples, or a {@link VersionPart}. */
export interface ParameterSource {
  readonly side: ParameterSide;
  readonly index: number;
}

/** What a change's version is made of, as parameters. */
export const VERSION_PART = {
  /** When it was committed at its origin. */
  at: 0,
  /** Its origin. */
  node: 1,
  /** What any node committed before this time the origin had seen. */
  seen: 2,
  /** `mmlite.key_hash` of the row's key, and of the one that it had before. */
  newHash: 3,
  oldHash: 4,
} as const;

/** See {@link VERSION_PART}. */
export type VersionPart = keyof typeof VERSION_PART;

/** A statement before it has a name. */
export interface StatementShape {
  readonly sql: string;
  readonly parameterTypes: readonly number[];
  readonly parameters: readonly ParameterSource[];
  /** Completes "Cannot …" in an error. */
  readonly doing: string;
}

/** How the row is found. */
export interface MatchShape {
  /** Whether the whole old row came and is compared: where there is no key, or where several rows may have it. */
  readonly byRow: boolean;
  /** Columns (their index) of the old row that are null; looked at only with `byRow`. */
  readonly nulls: ReadonlySet<number>;
}

/** What tells two updates of a relation apart, as far as their SQL goes. */
export interface UpdateShape extends MatchShape {
  /** The matching columns get other values. */
  readonly keyChanged: boolean;
  /** Columns (their index) whose value did not come. */
  readonly omitted: ReadonlySet<number>;
  /** Whether the row may be of those whose values are not all sent where they stay as they are. */
  readonly long: boolean;
}

/** The row before a change, or after it. */
export type TupleSide = "old" | "new";

/** Where every value came. */
export const NO_COLUMNS: ReadonlySet<number> = new Set();

const BY_KEY: MatchShape = { byRow: false, nulls: NO_COLUMNS };

const VERSION_TYPES: Readonly<Record<VersionPart, number>> = {
  at: 1184,
  node: 25,
  seen: 1184,
  newHash: 20,
  oldHash: 20,
};

/** A name as an SQL identifier. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text as an SQL literal. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes("\\") ? `E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** The parameters of a statement under construction; one per side and column. */
export class Parameters {
  readonly #sources: ParameterSource[] = [];
  readonly #types: number[] = [];
  readonly #numbers = new Map<string, number>();

  value(side: TupleSide, column: MappedColumn): string {
    return this.#number({ side, index: column.index }, column.typeOid);
  }

  version(part: VersionPart): string {
    return this.#number({ side: "version", index: VERSION_PART[part] }, VERSION_TYPES[part]);
  }

  shape(sql: string, doing: string): StatementShape {
    return { sql, parameterTypes: this.#types, parameters: this.#sources, doing };
  }

  #number(source: ParameterSource, typeOid: number): string {
    const id = `${source.side}${source.index}`;
    let number = this.#numbers.get(id);
    if (number === undefined) {
      this.#types.push(typeOid);
      number = this.#sources.push(source);
      this.#numbers.set(id, number);
    }
    return `$${number}`;
  }
}

/** Whether rows are compared by version. */
export function isVersioned({ key, settlement }: MappedRelation): boolean {
  return key !== null && settlement.versioned;
}

/** Two conditions; the second may be empty. */
export function both(one: string, other: string): string {
  return other === "" ? one : `${one} AND ${other}`;
}

/** The relation's local table. */
export function target({ schema, name }: MappedRelation): string {
  return `${quote(schema)}.${quote(name)}`;
}

/** The relation's own rows as `t`: without those of tables that inherit from it, which come by themselves. */
export function rows(relation: MappedRelation): string {
  return `${relation.partitioned ? "" : "ONLY "}${target(relation)} AS t`;
}

/** Columns as a list of identifiers. */
export function names(columns: readonly MappedColumn[]): string {
  return columns.map((column) => quote(column.name)).join(", ");
}

/** An INSERT up to its rows, which are `t` in what follows. */
export function insertInto(relation: MappedRelation, columns: readonly MappedColumn[]): string {
  const overriding = columns.some((column) => column.identityAlways) ? " OVERRIDING SYSTEM VALUE" : "";
  return `INSERT INTO ${target(relation)} AS t (${names(columns)})${overriding}`;
}

/** A column that can be set to what it is, so that the row gets another version. */
export function touched({ key }: MappedRelation): MappedColumn[] {
  return key?.columns.filter(({ written, identityAlways }) => written && !identityAlways).slice(0, 1) ?? [];
}

/** What an UPDATE sets: the columns that came, without those that it cannot or need not set. */
export function settable(
  relation: MappedRelation,
  { keyChanged, omitted }: Pick<UpdateShape, "keyChanged" | "omitted">,
): MappedColumn[] {
  const matching = keyChanged ? [] : relation.key?.columns ?? [];
  return relation.columns.filter((column) =>
    column.written && !column.identityAlways && !omitted.has(column.index) && !matching.includes(column)
  );
}

/** An UPDATE, or where it would set nothing a touch or a lock, of the rows that `where` finds. */
export function updateOrLock(
  relation: MappedRelation,
  sql: Parameters,
  options: { columns: readonly MappedColumn[]; where: string },
): string {
  const set = options.columns.map((column) => `${quote(column.name)} = ${sql.value("new", column)}`);
  if (set.length === 0 && isVersioned(relation)) {
    set.push(...touched(relation).map(({ name }) => `${quote(name)} = t.${quote(name)}`));
  }
  if (set.length === 0) return `SELECT 1 FROM ${rows(relation)} WHERE ${options.where} FOR UPDATE`;
  return `UPDATE ${rows(relation)} SET ${set.join(", ")} WHERE ${options.where} RETURNING 1`;
}

/** Whether the row `t` was written in this very transaction. */
const IS_OWN = "t.xmin::text = (pg_catalog.txid_current() & 4294967295)::text";

/**
 * Finds the row by its key. By row it is exactly one of those that equal the old row; or, if there is a key that
 * several rows may have for a while, one of those that have it, the old row itself before others. One that this
 * transaction has given the key is another row then, unless it equals the old one or may have been changed by triggers.
 */
export function where(
  relation: MappedRelation,
  sql: Parameters,
  side: TupleSide,
  { byRow, nulls }: MatchShape = BY_KEY,
): string {
  const keyed = relation.key?.columns.map((column) => equals(column, sql, side)) ?? [];
  if (!byRow) return keyed.join(" AND ");
  const rest = relation.columns.filter((column) => !relation.key?.columns.includes(column)).map((column) =>
    nulls.has(column.index) ? `t.${quote(column.name)} IS NULL` : equals(column, sql, side)
  );
  const isSame = rest.length === 0 ? "true" : `(${rest.join(" AND ")}) IS TRUE`;
  const [wanted, order] = relation.key === null ? [rest, ""] : [
    relation.firesOnApply ? keyed : [...keyed, `(${isSame} OR NOT ${IS_OWN})`],
    ` ORDER BY ${isSame} DESC, ${IS_OWN}`,
  ];
  // Row numbers repeat between partitions.
  const [place, places] = relation.partitioned
    ? ["(t.tableoid, t.ctid)", "t.tableoid, t.ctid"]
    : ["t.ctid", "t.ctid"];
  const condition = wanted.length === 0 ? "true" : wanted.join(" AND ");
  return `${place} = (SELECT ${places} FROM ${rows(relation)} WHERE ${condition}${order} LIMIT 1 FOR UPDATE)`;
}

/** Equality by the type's own operator; without one both sides are compared as this server prints them. */
function equals(column: MappedColumn, sql: Parameters, side: TupleSide): string {
  const value = sql.value(side, column);
  const place = `t.${quote(column.name)}`;
  if (column.equality === null) return `${sentTextOrNull(place)} = ${sentTextOrNull(value)}`;
  return `${place} OPERATOR(${column.equality}) ${value}`;
}

/** The key of a row `t` as an array of texts. */
export function keyTexts({ columns }: MatchKey): string {
  return `ARRAY[${columns.map(({ name }) => sentText(`t.${quote(name)}`)).join(", ")}]`;
}

/** The same of one of the change's tuples. */
export function keyTextsOf(side: TupleSide, { columns }: MatchKey, sql: Parameters): string {
  return `ARRAY[${columns.map((column) => sentText(sql.value(side, column))).join(", ")}]`;
}

/** `mmlite.key_hash` of a row `t`; 0 where it has no key. */
export function keyHash({ key, hashedAs }: MappedRelation): string {
  return key === null ? "0" : `mmlite.key_hash(${literal(hashedAs)}, ${keyTexts(key)})`;
}

/** Whether a row `t` has a key of which `text` is each value as text, in SQL, by its place in the key. */
export function keyMatches({ key }: MappedRelation, text: (place: number) => string): string {
  return key!.columns.map(({ name, typeName, equality }, i) =>
    equality === null
      ? `${sentTextOrNull(`t.${quote(name)}`)} = ${text(i)}`
      : `t.${quote(name)} OPERATOR(${equality}) ${text(i)}::${typeName}`
  ).join(" AND ");
}
