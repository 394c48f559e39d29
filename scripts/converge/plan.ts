/**
 * What one seed does: nodes, the transactions of each client, and the faults with their moments. Pure: everything
 * follows from the seed and the options; only the time that things take does not.
 */
import { type RandomInteger, seededIntegers } from "../../tests/support/append_load.ts";
import { POSTGRES_MAJORS, type PostgresMajor } from "../../tests/support/postgres_packages.ts";
import { keyText, type Table, TABLES } from "./tables.ts";

/** Text of the key columns, in their order. */
export type Key = readonly string[];

interface OnKey {
  readonly table: string;
  readonly key: Key;
}

/** One operation of a transaction. What it writes is `body` `repeat` times. */
export type Operation =
  | (OnKey & {
    readonly kind:
      | "insert"
      | "upsert"
      | "replace"
      | "update_row"
      | "update_number"
      | "increment"
      | "update_body";
    readonly number: number;
    readonly body: string;
    readonly repeat: number;
  })
  | (OnKey & { readonly kind: "delete" })
  | (OnKey & { readonly kind: "change_key"; readonly to: Key })
  | { readonly kind: "truncate"; readonly table: string };

/** The kinds of operations, and how often each comes: a share of their sum. */
export const OPERATION_WEIGHTS = {
  insert: 160,
  upsert: 90,
  replace: 60,
  update_row: 130,
  update_number: 130,
  increment: 60,
  update_body: 110,
  delete: 170,
  change_key: 85,
  truncate: 5,
} as const satisfies Record<Operation["kind"], number>;

const { update_row, update_number, increment, update_body } = OPERATION_WEIGHTS;
const UPDATE_WEIGHTS = { update_row, update_number, increment, update_body };

/** A transaction of a client. */
export interface PlannedTransaction {
  /** Unique among all of the seed. */
  readonly id: number;
  /** Since the client's transaction before, milliseconds. */
  readonly pauseMs: number;
  readonly operations: readonly Operation[];
}

/** A node. */
export interface PlannedNode {
  readonly name: string;
  readonly major: PostgresMajor;
  /** Of the server's clock, milliseconds; 0 for the machine's. */
  readonly serverSkewMs: number;
  /** Of mmlite's clock. */
  readonly mmliteSkewMs: number;
  /** By client. */
  readonly clients: readonly (readonly PlannedTransaction[])[];
}

/** Something that goes wrong at a moment after the start, milliseconds. Nodes are named by their place. */
export type Fault =
  & { readonly atMs: number; readonly forMs: number }
  & (
    | { readonly kind: "cut" | "close" | "stall"; readonly from: number; readonly to: number }
    | { readonly kind: "delay"; readonly from: number; readonly to: number; readonly delayMs: number }
    | { readonly kind: "kill_mmlite" | "crash_server"; readonly node: number }
  );

/** The kinds of faults, as reports list them. */
export const FAULT_KINDS = ["cut", "close", "stall", "delay", "kill_mmlite", "crash_server"] as const;

/** All of a seed. */
export interface Plan {
  readonly seed: number;
  readonly nodes: readonly PlannedNode[];
  /** Rows that the first node writes, and that are everywhere before anything else happens. */
  readonly prelude: PlannedTransaction | null;
  readonly faults: readonly Fault[];
}

/** What a plan may contain. */
export interface PlanOptions {
  /** Every node writes keys of its own, and nobody truncates. */
  readonly apart: boolean;
  /** All rows are there from the start, and nothing but updates comes. */
  readonly updatesOnly: boolean;
  /** Servers are 18 with true clocks, and there is no mmlite to kill: for the built-in subscription. */
  readonly builtin: boolean;
  /** Whether clocks can be skewed. */
  readonly skew: boolean;
}

/** Releases whose servers run with a skewed clock in some seeds, so that not too many servers are needed. */
const SKEWED_MAJORS: readonly PostgresMajor[] = [12, 15, 18];
const SKEWS_MS = [-700, 900] as const;
/** One seed in this many has skewed clocks. */
const SKEW_EVERY = 3;
/** One seed in this many has no faults at all, and one in {@link CRASH_EVERY} of the others a crash of a server. */
const CALM_EVERY = 6;
const CRASH_EVERY = 4;
/** One seed in this many begins with rows. */
const PRELUDE_EVERY = 2;
/** Of the prelude; clients count from 1. */
const PRELUDE_ID = 0;
const LARGEST_BURST = 15;

/** The plan of a seed. */
export function planSeed(seed: number, options: PlanOptions): Plan {
  const random = seededIntegers(Math.imul(seed, 0x9e3779b1));
  const count = random(3, 5);
  const keys = planKeys(random, { count, options });
  const begins = random(1, PRELUDE_EVERY) === 1;
  const prelude = planPrelude(random, keys);
  const nodes = planNodes(random, { seed, count, keys, options });
  const faults = planFaults(random, nodes, options);
  return { seed, nodes, prelude: begins || options.updatesOnly ? prelude : null, faults };
}

function planPrelude(random: RandomInteger, keys: Keys): PlannedTransaction {
  const operations = TABLES.flatMap((table) =>
    keys.get(table.name)![0].map((key) => makeWrite(random, table, { kind: "insert", key }))
  );
  return { id: PRELUDE_ID, pauseMs: 0, operations };
}

function planNodes(
  random: RandomInteger,
  { seed, count, keys, options }: { seed: number; count: number; keys: Keys; options: PlanOptions },
): PlannedNode[] {
  // What the options leave out is drawn all the same, so that a seed is the same workload under all of them.
  const isSkewed = random(1, SKEW_EVERY) === 1;
  const skewMs = () => {
    const drawn = pick(random, [0, ...SKEWS_MS]);
    return isSkewed && options.skew && !options.builtin ? drawn : 0;
  };
  const majors = draw(random, POSTGRES_MAJORS, count);
  const ids = counter();
  return majors.map((major, place) => {
    const serverSkewMs = skewMs();
    const write = { place, major, keys, ids, options };
    return {
      // Unlike those of other seeds, because slots and origins belong to the whole server.
      name: `${String.fromCharCode(97 + place)}${seed}`,
      major: options.builtin ? 18 : major,
      serverSkewMs: SKEWED_MAJORS.includes(major) ? serverSkewMs : 0,
      mmliteSkewMs: skewMs(),
      clients: Array.from({ length: random(1, 3) }, () => planClient(random, write)),
    };
  });
}

/** By table, the keys that each node writes. */
export type Keys = ReadonlyMap<string, readonly (readonly Key[])[]>;

/** By table and place of the node; all nodes have the same unless they write apart. */
function planKeys(random: RandomInteger, { count, options }: { count: number; options: PlanOptions }): Keys {
  return new Map(TABLES.map((table) => {
    const size = random(3, 8);
    const keysFrom = (first: number) =>
      Array.from({ length: size }, (_, index) => makeKey(table, first + index));
    return [
      table.name,
      Array.from({ length: count }, (_, place) => keysFrom(options.apart ? place * 10 : 0)),
    ];
  }));
}

const PARTS = ["a", "ü", "it's", "back\\slash", "tab\there", "", "NULL", "long".repeat(20)];

/** A key of a table by its number. */
export function makeKey(table: Table, number: number): Key {
  if (table.key.length === 1) return [String(number)];
  return [PARTS[number % PARTS.length], String(number)];
}

/** Who writes what. */
export interface WriteOptions {
  readonly place: number;
  readonly major: PostgresMajor;
  readonly keys: Keys;
  readonly ids: () => number;
  readonly options: Pick<PlanOptions, "apart" | "updatesOnly">;
}

/** Bursts of random size with pauses between them, so that groups of random size form. */
function planClient(random: RandomInteger, write: WriteOptions): PlannedTransaction[] {
  const transactions: PlannedTransaction[] = [];
  const bursts = random(3, 7);
  for (let burst = 0; burst < bursts; burst++) {
    const size = random(1, LARGEST_BURST);
    for (let index = 0; index < size; index++) {
      const pauseMs = index === 0 ? random(0, 350) : random(0, 3);
      transactions.push({ id: write.ids(), pauseMs, operations: planOperations(random, write) });
    }
  }
  return transactions;
}

/** The operations of one transaction. */
export function planOperations(random: RandomInteger, write: WriteOptions): Operation[] {
  // Half of all transactions change one row.
  const size = random(0, 1) === 0 ? 1 : random(1, 6);
  return Array.from({ length: size }, () => planOperation(random, write));
}

function planOperation(random: RandomInteger, write: WriteOptions): Operation {
  const table = pick(random, TABLES);
  const keys = write.keys.get(table.name)![write.place];
  const key = pick(random, keys);
  let kind = pickWeighted(random, write.options.updatesOnly ? UPDATE_WEIGHTS : OPERATION_WEIGHTS);
  // PostgreSQL 10 does not decode TRUNCATE.
  if (kind === "truncate" && (write.options.apart || write.major === 10)) kind = "delete";
  switch (kind) {
    case "truncate":
      return { kind, table: table.name };
    case "delete":
      return { kind, table: table.name, key };
    case "change_key": {
      const others = keys.filter((other) => keyText(other) !== keyText(key));
      return { kind, table: table.name, key, to: pick(random, others) };
    }
    default:
      return makeWrite(random, table, { kind, key });
  }
}

type Write = Extract<Operation, { number: number }>;

function makeWrite(random: RandomInteger, table: Table, what: { kind: Write["kind"]; key: Key }): Write {
  return {
    ...what,
    table: table.name,
    number: random(0, 999),
    body: randomText(random),
    repeat: table.large ? random(300, 900) : random(1, 2),
  };
}

/** 32 characters; 300 times that is over 8 kB. */
function randomText(random: RandomInteger): string {
  return Array.from({ length: 4 }, () => random(0, 0x7ffffffe).toString(16).padStart(8, "0")).join("");
}

function planFaults(random: RandomInteger, nodes: readonly PlannedNode[], options: PlanOptions): Fault[] {
  const links = nodes.flatMap((_, from) =>
    nodes.map((_, to) => ({ from, to })).filter((l) => l.from !== l.to)
  );
  // Every link has a delay of its own for the whole time, so that changes arrive in different orders.
  const faults: Fault[] = links.filter(() => random(0, 2) > 0).map((link) => ({
    ...link,
    kind: "delay",
    delayMs: random(1, random(0, 3) === 0 ? 600 : 60),
    atMs: 0,
    forMs: Infinity,
  }));
  if (random(1, CALM_EVERY) === 1) return faults;
  const lastMs = Math.min(...nodes.map(plannedMs));
  for (let left = random(1, 5); left > 0; left--) {
    const at = { atMs: random(0, lastMs), forMs: random(20, 900) };
    const kind = pick(random, ["cut", "close", "stall", "delay", "kill_mmlite"] as const);
    if (kind === "delay") faults.push({ ...at, ...pick(random, links), kind, delayMs: random(50, 500) });
    else if (kind !== "kill_mmlite") faults.push({ ...at, ...pick(random, links), kind });
    else faults.push({ ...at, kind, node: random(0, nodes.length - 1) });
  }
  if (random(1, CRASH_EVERY) === 1) {
    const node = random(0, nodes.length - 1);
    faults.push({ atMs: random(0, lastMs), forMs: random(0, 300), kind: "crash_server", node });
  }
  return faults.filter(({ kind }) => !options.builtin || kind !== "kill_mmlite").sort((one, other) =>
    one.atMs - other.atMs
  );
}

/** How long a node's slowest client pauses in all, milliseconds. */
function plannedMs({ clients }: PlannedNode): number {
  const sums = clients.map((transactions) => transactions.reduce((sum, { pauseMs }) => sum + pauseMs, 0));
  return Math.max(...sums);
}

function counter(): () => number {
  let last = 0;
  return () => ++last;
}

/** One of them. */
export function pick<T>(random: RandomInteger, choices: readonly T[]): T {
  return choices[random(0, choices.length - 1)];
}

/** `count` of them, none twice, in random order. */
export function draw<T>(random: RandomInteger, choices: readonly T[], count: number): T[] {
  const left = [...choices];
  return Array.from({ length: count }, () => left.splice(random(0, left.length - 1), 1)[0]);
}

type Weights = Readonly<Partial<Record<Operation["kind"], number>>>;

function pickWeighted(random: RandomInteger, weights: Weights): Operation["kind"] {
  const entries = Object.entries(weights) as [Operation["kind"], number][];
  let left = random(1, entries.reduce((sum, [, weight]) => sum + weight, 0));
  for (const [kind, weight] of entries) {
    left -= weight;
    if (left <= 0) return kind;
  }
  throw new Error("There are no weights");
}
