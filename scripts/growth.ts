/**
 * `deno task growth [--quick] [--only peers|tables|relations]…`: how what mmlite takes grows with the peers of a
 * node, with the published tables, and with tables that change.
 *
 * Several nodes share this machine's cores, so the times of many say less than their processor time does. `--quick`
 * takes about a minute. The last line is one sentence; the exit code is 1 if a receiver did not hold what was sent.
 */
import process from "node:process";
import { openBed } from "./bench/bed.ts";
import { growPeers, type PeerGrowth } from "./growth/peers.ts";
import { growRelations, type RelationGrowth } from "./growth/relations.ts";
import { growTables, type TableGrowth } from "./growth/tables.ts";
import { readOptions, refuseOptions } from "./options.ts";
import { formatTable } from "./text_table.ts";

/** How much is run. */
interface Extent {
  readonly peers: { readonly counts: readonly number[]; readonly size: number };
  readonly tables: { readonly counts: readonly number[]; readonly idleSeconds: number };
  readonly relations: { readonly transactions: number; readonly pairs: number };
}

const WHOLE: Extent = {
  peers: { counts: [2, 3, 5], size: 0.5 },
  tables: { counts: [10, 1_000, 10_000], idleSeconds: 20 },
  relations: { transactions: 10_000, pairs: 3 },
};
const QUICK: Extent = {
  peers: { counts: [2, 3, 5], size: 0.05 },
  tables: { counts: [10, 1_000], idleSeconds: 5 },
  relations: { transactions: 2_000, pairs: 1 },
};

/** A transaction over 10,000 tables locks all of them, and their keys. */
const SETTINGS = { max_locks_per_transaction: "1024" };

/** One table of the report, whether all rows were equal, and what it comes to. */
interface Finding {
  readonly rows: readonly (readonly string[])[];
  readonly equal: boolean;
  readonly sum: string;
}

type Growth = (extent: Extent) => Promise<Finding>;

const GROWTHS: Readonly<Record<string, Growth>> = { peers, tables, relations };

async function peers(extent: Extent): Promise<Finding> {
  const onRun = ({ nodes, seconds }: PeerGrowth) =>
    progress(`${nodes} nodes: ${seconds.toFixed(2)} s until all have everything`);
  const runs = await growPeers({ ...extent.peers, onRun });
  const [few, many] = [runs[0], runs.at(-1)!];
  const further = many.nodes - few.nodes;
  const serverCost = (many.serverSeconds - few.serverSeconds) / further;
  const senderCost = (many.senderSeconds - few.senderSeconds) / further;
  const memory = (many.senderMemory - few.senderMemory) / further;
  return {
    rows: [
      [
        ...["nodes", "seconds", "applied changes/s", "sending server CPU s", "sending mmlite CPU s"],
        ...["sender MB", "receiver MB", "rows"],
      ],
      ...runs.map((run) => [
        String(run.nodes),
        run.seconds.toFixed(2),
        run.rate.toFixed(0),
        ...[run.serverSeconds, run.senderSeconds].map((seconds) => seconds.toFixed(2)),
        ...[run.senderMemory, run.receiverMemory].map(megabytes),
        verdict(run),
      ]),
    ],
    equal: runs.every(({ equal }) => equal),
    sum: `a further peer took ${serverCost.toFixed(2)} s of the sending server, ${senderCost.toFixed(2)} s ` +
      `and ${megabytes(memory)} MB of the sending mmlite`,
  };
}

async function tables(extent: Extent): Promise<Finding> {
  await using stack = new AsyncDisposableStack();
  const bed = await openBed(stack, [{ settings: SETTINGS }, { settings: SETTINGS }]);
  const onRun = ({ tables, firstRound }: TableGrowth) =>
    progress(`${tables} tables: a change in each arrives in ${firstRound.toFixed(2)} s`);
  const runs = await growTables(bed, { ...extent.tables, onRun });
  const [few, many] = [runs[0], runs.at(-1)!];
  const perTable = (pick: (run: TableGrowth) => number) =>
    ((pick(many) - pick(few)) / (many.tables - few.tables) / 1000).toFixed(1);
  return {
    rows: [
      [
        ...["tables", "first start s", "later start s", "first changes s", "next changes s", "sender MB"],
        ...["receiver MB", "walsender MB", "apply session MB", "idle mmlite %", "idle servers %", "rows"],
      ],
      ...runs.map((run) => [
        String(run.tables),
        ...[run.firstStart, run.laterStart, run.firstRound, run.secondRound].map((one) => one.toFixed(2)),
        ...[run.senderMemory, run.receiverMemory, run.walsenderMemory, run.applyMemory].map(megabytes),
        ...[run.idleSidecars, run.idleServers].map((share) => (share * 100).toFixed(2)),
        verdict(run),
      ]),
    ],
    equal: runs.every(({ equal }) => equal),
    sum: `a further table took ${perTable((run) => run.senderMemory)} kB of the sending mmlite, ` +
      `${perTable((run) => run.receiverMemory)} kB of the receiving one, ` +
      `${perTable((run) => run.walsenderMemory)} kB of the walsender and ` +
      `${perTable((run) => run.applyMemory)} kB of the session that applies`,
  };
}

async function relations(extent: Extent): Promise<Finding> {
  await using stack = new AsyncDisposableStack();
  const bed = await openBed(stack);
  const onRun = (run: RelationGrowth) => progress(`${run.case}: ${run.mmlite.toFixed(0)} µs a transaction`);
  const runs = await growRelations(bed, { ...extent.relations, onRun });
  const [, other, announced] = runs;
  const cost = (rival: "builtin" | "mmlite") => (announced[rival] - other[rival]).toFixed(0);
  return {
    rows: [
      ["before each transaction", "built-in µs", "mmlite µs", "rows"],
      ...runs.map((run) => [run.case, run.builtin.toFixed(0), run.mmlite.toFixed(0), verdict(run)]),
    ],
    equal: runs.every(({ equal }) => equal),
    sum: `an announcement took ${cost("mmlite")} µs (built-in ${cost("builtin")} µs)`,
  };
}

function progress(line: string): void {
  console.error(line);
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function verdict({ equal }: { equal: boolean }): string {
  return equal ? "equal" : "DIFFER";
}

async function main(): Promise<number> {
  const values = readOptions(import.meta.url, {
    quick: { type: "boolean", default: false },
    only: { type: "string", multiple: true },
  });
  const wanted = values.only ?? Object.keys(GROWTHS);
  const unknown = wanted.find((name) => !(name in GROWTHS));
  if (unknown !== undefined) {
    refuseOptions(`Cannot run "${unknown}": there are ${Object.keys(GROWTHS).join(", ")}`);
  }
  const findings: Finding[] = [];
  for (const name of wanted) {
    findings.push(await GROWTHS[name](values.quick ? QUICK : WHOLE));
    console.log("\n" + formatTable(findings.at(-1)!.rows).join("\n") + "\n");
  }
  const equal = findings.every((finding) => finding.equal);
  const sums = findings.map(({ sum }) => sum).join("; ");
  console.log(equal ? `All rows were equal; ${sums}.` : "The databases differed in the end.");
  return equal ? 0 : 1;
}

process.exit(await main());
