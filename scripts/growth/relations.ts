/**
 * What it costs that a table is announced again: every small transaction comes after an ALTER TABLE, which makes
 * pgoutput send the table's columns anew.
 *
 * The same ALTER of a table that is not published is what decoding the catalog change costs by itself; the
 * difference is the announcement. The built-in subscription runs beside it.
 */
import type { Bed } from "../bench/bed.ts";
import { builtinRival } from "../bench/builtin.ts";
import { type CatchUp, catchUp } from "../bench/catch_up.ts";
import type { RivalName } from "../bench/rival.ts";
import { startSidecars } from "../bench/sidecars.ts";
import type { Backlog } from "../bench/workloads.ts";
import { median } from "../statistics.ts";

/** What comes before each transaction, by the name of the case. */
const BEFORE = {
  "nothing": "",
  "another table altered": "ALTER TABLE aside.other ALTER body SET STATISTICS 100;",
  "announced again": "ALTER TABLE item ALTER body SET STATISTICS 100;",
} as const;

/** A case. */
export type RelationCase = keyof typeof BEFORE;
/** All of them, in order. */
export const RELATION_CASES = Object.keys(BEFORE) as RelationCase[];

/** One case, by both rivals. */
export interface RelationGrowth {
  readonly case: RelationCase;
  /** Microseconds for a transaction, its ALTER TABLE included. */
  readonly builtin: number;
  readonly mmlite: number;
  readonly equal: boolean;
}

/** Runs every case `pairs` times with both rivals in turn. */
export async function growRelations(
  bed: Bed,
  { transactions, pairs, onRun }: {
    transactions: number;
    pairs: number;
    onRun: (result: RelationGrowth) => void;
  },
): Promise<RelationGrowth[]> {
  const results: RelationGrowth[] = [];
  for (const name of RELATION_CASES) {
    const runs = await catchUp(bed, {
      backlog: backlogOf(transactions, BEFORE[name]),
      pairs,
      startRivals: async (stack) => [builtinRival({ unixSocket: false }), await startSidecars(bed, stack)],
      onRun: () => {},
    });
    results.push({
      case: name,
      builtin: microsecondsOf(runs, "builtin"),
      mmlite: microsecondsOf(runs, "mmlite"),
      equal: runs.every(({ equal }) => equal),
    });
    onRun(results.at(-1)!);
  }
  return results;
}

function backlogOf(transactions: number, before: string): Backlog {
  const table = "(id int PRIMARY KEY, body text NOT NULL)";
  return {
    schema: `CREATE TABLE item ${table}; CREATE SCHEMA aside; CREATE TABLE aside.other ${table}`,
    statements: [`DO $$ BEGIN
      FOR i IN 1..${transactions} LOOP ${before} COMMIT; INSERT INTO item VALUES (i, md5(i::text)); COMMIT; END LOOP;
    END $$`],
    changes: transactions,
  };
}

/** The middle time for one change, which is a transaction here. */
function microsecondsOf(runs: readonly CatchUp[], rival: RivalName): number {
  return median(runs.filter((run) => run.rival === rival).map(({ rate }) => 1e6 / rate));
}
