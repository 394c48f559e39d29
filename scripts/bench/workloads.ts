/**
 * What the rivals have to deliver: tables with their first rows, and a backlog of transactions.
 *
 * Backlogs are written once for each workload, at the server itself, and read by every run from a slot of its own:
 * all rivals get the same bytes.
 */

/** Transactions to catch up with. */
export interface Backlog {
  /** Tables and first rows, for sender and receiver alike. */
  readonly schema: string;
  /** Statements, each on its own: a transaction, or a block that commits by itself. */
  readonly statements: readonly string[];
  /** Rows inserted, updated and deleted by them. */
  readonly changes: number;
  /** Run at each receiver before it begins, as by a client of its own. */
  readonly atReceiver?: string;
}

/** A backlog by size: 1 is the whole, smaller takes a part of the rows and transactions. */
export type BacklogWorkload = (size: number) => Backlog;

/** Rows of the table that small transactions hit at random; ten branches of pgbench. */
const ACCOUNTS = 1_000_000;

/** pgbench's tables and first rows, as `pgbench -i` makes them. */
function pgbenchSchema(size: number): string {
  const accounts = part(ACCOUNTS, size);
  return `
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    INSERT INTO pgbench_branches SELECT g, 0, '' FROM generate_series(1, 10) g;
    INSERT INTO pgbench_tellers SELECT g, (g - 1) / 10 + 1, 0, '' FROM generate_series(1, 100) g;
    INSERT INTO pgbench_accounts SELECT g, (g - 1) / 100000 + 1, 0, '' FROM generate_series(1, ${accounts}) g;`;
}

/** A block that runs `body` as a transaction of its own, `count` times; `i` counts from 1. */
function transactions(count: number, body: string, declarations = ""): string {
  return `DO $$ DECLARE ${declarations} BEGIN
    FOR i IN 1..${count} LOOP ${body} COMMIT; END LOOP;
  END $$`;
}

/** Account numbers, both included. */
type Accounts = readonly [first: number, last: number];

/** The statements of `pgbench -N` on some accounts, or with tellers and branches of its TPC-B. */
function pgbench([first, last]: Accounts, { count, tpcb }: { count: number; tpcb: boolean }): string {
  const balances = tpcb
    ? `UPDATE pgbench_tellers t SET tbalance = tbalance + delta WHERE t.tid = tid_;
       UPDATE pgbench_branches b SET bbalance = bbalance + delta WHERE b.bid = bid_;`
    : "";
  const body = `
    aid_ := ${first} + floor(random() * ${last - first + 1}); tid_ := 1 + floor(random() * 100);
    bid_ := 1 + floor(random() * 10); delta := floor(random() * 10001) - 5000;
    UPDATE pgbench_accounts a SET abalance = abalance + delta WHERE a.aid = aid_;
    ${balances}
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
      VALUES (tid_, bid_, aid_, delta, clock_timestamp());`;
  return transactions(count, body, "aid_ int; tid_ int; bid_ int; delta int;");
}

const oltpN: BacklogWorkload = (size) => {
  const count = part(100_000, size);
  return {
    schema: pgbenchSchema(size),
    statements: [pgbench([1, part(ACCOUNTS, size)], { count, tpcb: false })],
    changes: 2 * count,
  };
};

const tpcb: BacklogWorkload = (size) => {
  const count = part(50_000, size);
  return {
    schema: pgbenchSchema(size),
    statements: [pgbench([1, part(ACCOUNTS, size)], { count, tpcb: true })],
    changes: 4 * count,
  };
};

const ITEM = "CREATE TABLE item (id int PRIMARY KEY, number int NOT NULL, body text NOT NULL)";
const ITEM_VALUES = "g, g % 1000, md5(g::text)";

const insert: BacklogWorkload = (size) => {
  const rows = part(1_000_000, size);
  return {
    schema: ITEM,
    statements: [`INSERT INTO item SELECT ${ITEM_VALUES} FROM generate_series(1, ${rows}) g`],
    changes: rows,
  };
};

const insertThousands: BacklogWorkload = (size) => {
  const count = part(1_000, size);
  const rows = `generate_series(1000 * i - 999, 1000 * i)`;
  return {
    schema: ITEM,
    statements: [transactions(count, `INSERT INTO item SELECT ${ITEM_VALUES} FROM ${rows} g;`)],
    changes: 1_000 * count,
  };
};

/** One statement over all rows of a table that is there already. */
function overAll(statement: string): BacklogWorkload {
  return (size) => {
    const rows = part(500_000, size);
    return {
      schema: `${ITEM}; INSERT INTO item SELECT ${ITEM_VALUES} FROM generate_series(1, ${rows}) g`,
      statements: [statement],
      changes: rows,
    };
  };
}

/**
 * Updates in transactions of a hundred rows, of which the receiver has changed some later: each of those is a conflict.
 * Nothing really changes, so that all hold the same in the end, whoever wins.
 */
function conflicting(percent: number): BacklogWorkload {
  return (size) => {
    const count = part(3_000, size);
    return {
      schema: `${ITEM}; INSERT INTO item SELECT ${ITEM_VALUES} FROM generate_series(1, ${100 * count}) g`,
      statements: [
        transactions(count, "UPDATE item SET number = number WHERE id BETWEEN 100 * i - 99 AND 100 * i;"),
      ],
      changes: 100 * count,
      atReceiver: `UPDATE item SET number = number WHERE id % 100 < ${percent}`,
    };
  };
}

/** A hundred columns of five types, inserted and then updated in transactions of a hundred rows. */
const wide: BacklogWorkload = (size) => {
  const count = part(1_000, size);
  const types = ["int", "bigint", "text", "timestamptz", "numeric(12,2)"];
  const values = ["g + i", "(g + i) * 1000000007::bigint", "md5((g + i)::text)", "now()", "(g + i) / 7.0"];
  const columns = Array.from({ length: 99 }, (_, i) => `c${i} ${types[i % types.length]}`).join(", ");
  const row = Array.from({ length: 99 }, (_, i) => values[i % values.length]).join(", ");
  const rows = "100 * i - 99 AND 100 * i";
  return {
    schema: `CREATE TABLE wide (id int PRIMARY KEY, ${columns})`,
    statements: [
      transactions(count, `INSERT INTO wide SELECT g, ${row} FROM generate_series(100 * i - 99, 100 * i) g;`),
      transactions(count, `UPDATE wide SET c0 = c0 + 1, c2 = 'changed' WHERE id BETWEEN ${rows};`),
    ],
    changes: 200 * count,
  };
};

/** Values of 50 KB, half of them compressible; then updates that leave them as they are. Ten rows each. */
const toast: BacklogWorkload = (size) => {
  const count = part(500, size);
  const random = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 1600 + 0 * g))";
  const body = `CASE WHEN g % 2 = 0 THEN repeat(md5(g::text), 1600) ELSE ${random} END`;
  return {
    schema: "CREATE TABLE document (id int PRIMARY KEY, version int NOT NULL, body text NOT NULL)",
    statements: [
      transactions(
        count,
        `INSERT INTO document SELECT g, 1, ${body} FROM generate_series(10 * i - 9, 10 * i) g;`,
      ),
      transactions(count, "UPDATE document SET version = 2 WHERE id BETWEEN 10 * i - 9 AND 10 * i;"),
    ],
    changes: 20 * count,
  };
};

/** What each of several nodes writes at once: `pgbench -N` on accounts of its own. */
export function shareOfOltpN(size: number, { index, of }: { index: number; of: number }): Backlog {
  const count = part(40_000, size);
  const accounts = Math.floor(part(ACCOUNTS, size) / of);
  return {
    schema: pgbenchSchema(size),
    statements: [pgbench([index * accounts + 1, (index + 1) * accounts], { count, tpcb: false })],
    changes: 2 * count,
  };
}

/** All backlogs by name. */
export const BACKLOGS: Readonly<Record<string, BacklogWorkload>> = {
  "oltp-n": oltpN,
  tpcb,
  insert,
  "insert-1k": insertThousands,
  update: overAll("UPDATE item SET number = number + 1"),
  delete: overAll("DELETE FROM item"),
  wide,
  toast,
  "conflict-0": conflicting(0),
  "conflict-1": conflicting(1),
  "conflict-50": conflicting(50),
};

function part(whole: number, size: number): number {
  return Math.max(1, Math.round(whole * size));
}
