/**
 * Every kind of change on every kind of table, as SQL, for two releases that replicate both ways.
 */

/** Which end of a pair. */
export type End = "newer" | "older";

/** What one end does; each string is one transaction. */
export interface ScenarioStep {
  readonly title: string;
  readonly transactions: readonly string[];
  /** Further statements, which must run and of which nothing must be sent. */
  readonly unsent?: readonly string[];
}

/** Keys that an end writes begin here, so that the two never meet. */
const FIRST_KEY: Record<End, number> = { newer: 1_000, older: 2_000 };
/** Where partitioned tables are split; keys move across it by adding it. */
const PARTITION_BOUND = 5_000;
/** 20 kB, stored out of line and not compressed. */
const BIG = "repeat(md5(g::text), 625)";

/** The tables of one end of a pair; `older` is the older major release of the two. */
export function pairSchema(end: End, older: number): string {
  const other = end === "newer" ? "older" : "newer";
  return `
CREATE TABLE item (id int PRIMARY KEY, v int, big text);
ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
CREATE TABLE whole (LIKE item INCLUDING ALL);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, v int);
CREATE UNIQUE INDEX by_index_key ON by_index (b, a);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE keyless (v text);
CREATE TABLE twins (a int, b text);
ALTER TABLE twins REPLICA IDENTITY FULL;
CREATE TABLE ident (v int, id int GENERATED ALWAYS AS IDENTITY (START ${FIRST_KEY[end]}) PRIMARY KEY);
CREATE TABLE wide_${end} (id int PRIMARY KEY, note text NOT NULL DEFAULT 'local', v int);
CREATE TABLE wide_${other} (id int PRIMARY KEY, v int);
CREATE TABLE cleared (id int PRIMARY KEY);
CREATE TABLE cleared_too (id int PRIMARY KEY REFERENCES cleared);
${older >= 12 ? computedTable(end) : ""}
${partitioned("parted", { keyOnLeaf: end === "older" && older === 10, bound: partedBound(end, older) })}
${
    end === "newer"
      ? partitioned("split", { keyOnLeaf: false, bound: PARTITION_BOUND })
      : "CREATE TABLE split (id int PRIMARY KEY, v int);"
  }`;
}

/** Virtual at one end, stored at the other. */
function computedTable(end: End): string {
  const stored = end === "newer" ? "" : " STORED";
  return `CREATE TABLE computed (v int, w int GENERATED ALWAYS AS (v * 2)${stored}, id int PRIMARY KEY);`;
}

/** From 13 on changes carry the root's name, so the partitions may differ; below they carry the partition's. */
function partedBound(end: End, older: number): number {
  return end === "older" && older >= 13 ? FIRST_KEY.newer + 5 : PARTITION_BOUND;
}

function partitioned(name: string, { keyOnLeaf, bound }: { keyOnLeaf: boolean; bound: number }): string {
  const [rootKey, leafKey] = keyOnLeaf ? ["", " (PRIMARY KEY (id))"] : [", PRIMARY KEY (id)", ""];
  return `
CREATE TABLE ${name} (id int NOT NULL, v int${rootKey}) PARTITION BY RANGE (id);
CREATE TABLE ${name}_low PARTITION OF ${name}${leafKey} FOR VALUES FROM (MINVALUE) TO (${bound});
CREATE TABLE ${name}_high PARTITION OF ${name}${leafKey} FOR VALUES FROM (${bound}) TO (MAXVALUE);`;
}

/** What `end` of a pair writes. */
export function pairSteps(end: End, older: number): ScenarioStep[] {
  const major = end === "newer" ? 18 : older;
  const k = FIRST_KEY[end];
  return [
    ...["item", "whole"].map((table) => rowSteps(table, k)),
    {
      title: "a unique index as replica identity",
      transactions: [
        `INSERT INTO by_index SELECT ${k} + g, 'b', g FROM generate_series(1, 5) g`,
        `UPDATE by_index SET v = -v WHERE a > ${k + 3}`,
        `UPDATE by_index SET b = 'c' WHERE a = ${k + 1}`,
        `DELETE FROM by_index WHERE a = ${k + 2}`,
      ],
    },
    {
      title: "a table without key takes inserts; its updates and deletes stay where they are",
      transactions: [`INSERT INTO keyless SELECT 'same' FROM generate_series(1, 3)`],
      unsent: [
        "UPDATE keyless SET v = v",
        "DELETE FROM keyless WHERE v = 'none'",
      ],
    },
    {
      title: "one of several equal rows",
      transactions: [
        `INSERT INTO twins SELECT ${k}, 'x' FROM generate_series(1, 4)`,
        `INSERT INTO twins VALUES (${k}, NULL), (${k}, NULL), (NULL, NULL)`,
        `UPDATE twins SET b = 'y' WHERE ctid = (SELECT min(ctid::text)::tid FROM twins WHERE a = ${k} AND b = 'x')`,
        `DELETE FROM twins WHERE ctid = (SELECT min(ctid::text)::tid FROM twins WHERE a = ${k} AND b = 'x')`,
        `DELETE FROM twins WHERE ctid = (SELECT min(ctid::text)::tid FROM twins WHERE a = ${k} AND b IS NULL)`,
        `UPDATE twins SET b = '' WHERE a = ${k} AND b IS NULL`,
      ],
    },
    {
      title: "an identity column",
      transactions: [
        "INSERT INTO ident (v) SELECT g FROM generate_series(1, 5) g",
        `UPDATE ident SET v = -v WHERE id = ${k + 1}`,
        `UPDATE ident SET id = DEFAULT WHERE id = ${k + 2}`,
        `DELETE FROM ident WHERE id = ${k + 3}`,
      ],
    },
    {
      title: "columns that only the other end has",
      transactions: [
        `INSERT INTO wide_${otherEnd(end)} SELECT ${k} + g, g FROM generate_series(1, 3) g`,
        `UPDATE wide_${otherEnd(end)} SET v = -v WHERE id = ${k + 1}`,
      ],
    },
    ...(older >= 12 ? [computedStep(k)] : []),
    partitionSteps("parted", k, { moves: major >= 11 && older >= 11 }),
    partitionSteps("split", k, { moves: true }),
    ...(major >= 11 ? [truncateStep(k)] : []),
  ];
}

/** The other end of a pair. */
export function otherEnd(end: End): End {
  return end === "newer" ? "older" : "newer";
}

function rowSteps(table: string, k: number): ScenarioStep {
  return {
    title: `${table === "whole" ? "the whole row" : "the key"} as replica identity`,
    transactions: [
      `INSERT INTO ${table} SELECT ${k} + g, g, ${BIG} FROM generate_series(1, 10) g`,
      `UPDATE ${table} SET v = v + 1 WHERE id > ${k} AND id <= ${k + 5}`,
      `UPDATE ${table} SET id = id + 500 WHERE id IN (${k + 6}, ${k + 7})`,
      `UPDATE ${table} SET big = 'short' WHERE id = ${k + 8}`,
      `UPDATE ${table} SET big = NULL, v = NULL WHERE id = ${k + 9}`,
      `UPDATE ${table} SET big = repeat('é', 20000) WHERE id = ${k + 10}`,
      `DELETE FROM ${table} WHERE id = ${k + 1}`,
      `BEGIN; INSERT INTO ${table} VALUES (${k + 20}, 1, 'x'); UPDATE ${table} SET id = ${k + 21}, v = 2
         WHERE id = ${k + 20}; SAVEPOINT s; DELETE FROM ${table}; ROLLBACK TO s;
         INSERT INTO ${table} VALUES (${k + 20}, 3, 'y'); DELETE FROM ${table} WHERE id = ${k + 2}; COMMIT`,
    ],
    unsent: [`BEGIN; DELETE FROM ${table}; ROLLBACK`],
  };
}

function computedStep(k: number): ScenarioStep {
  return {
    title: "a generated column",
    transactions: [
      `INSERT INTO computed (v, id) SELECT g, ${k} + g FROM generate_series(1, 3) g`,
      `UPDATE computed SET v = -v WHERE id = ${k + 1}`,
      `UPDATE computed SET id = id + 500 WHERE id = ${k + 2}`,
    ],
  };
}

function partitionSteps(table: string, k: number, { moves }: { moves: boolean }): ScenarioStep {
  return {
    title: table === "split" ? "a table that only one end has partitioned" : "a partitioned table",
    transactions: [
      `INSERT INTO ${table} SELECT ${k} + g + part, g
         FROM generate_series(1, 10) g, unnest(ARRAY[0, ${PARTITION_BOUND}]) part`,
      `UPDATE ${table} SET v = -v WHERE id % 2 = 0 AND id > ${k} AND id < ${k + PARTITION_BOUND}`,
      `DELETE FROM ${table} WHERE id IN (${k + 2}, ${k + 4 + PARTITION_BOUND})`,
      `UPDATE ${table} SET id = id + 50 WHERE id = ${k + 6 + PARTITION_BOUND}`,
      ...(moves ? [`UPDATE ${table} SET id = id + ${PARTITION_BOUND - 100} WHERE id = ${k + 7}`] : []),
    ],
  };
}

function truncateStep(k: number): ScenarioStep {
  return {
    title: "truncation",
    transactions: [
      `INSERT INTO cleared SELECT ${k} + g FROM generate_series(1, 100) g`,
      `INSERT INTO cleared_too VALUES (${k + 1})`,
      "TRUNCATE cleared CASCADE",
      "TRUNCATE split",
      `INSERT INTO cleared VALUES (${k + 1})`,
      `INSERT INTO split VALUES (${k + 1}, 1)`,
    ],
  };
}
