/**
 * `deno task copy [--rows N] [--runs N] [--json FILE]`: how long it takes to copy three tables to an empty database,
 * by mmlite between two processes over HTTP/2 with TLS, by PostgreSQL's own subscription (its initial copy, over TCP),
 * and by `COPY … TO PROGRAM` into `COPY … FROM` through a pipe, text in both; on the same two servers, in turns.
 *
 * The last line is one sentence; the exit code is 1 if mmlite was slower than the pipe, less than 1.5 times as fast as
 * the subscription, or took 200 MB.
 */
import { join } from "node:path";
import process from "node:process";
import { type Mmlite, startMmlite } from "../tests/support/mmlite.ts";
import { eventually } from "../tests/support/poll.ts";
import { type Bed, createDatabases, createTarget, dropTarget, openBed, SOURCE } from "./bench/bed.ts";
import { digestSource, digestTarget, PUBLICATION, type Run } from "./bench/bed.ts";
import { type ProcessorTime, serverTimes, timeBetween } from "./bench/processor_time.ts";
import { request, SENDER, startSender } from "./bench/sidecars.ts";
import { openAuthority } from "./certificates.ts";
import { cpuSeconds, MemoryWatch } from "./memory_watch.ts";
import { readOptions, wholeNumber } from "./options.ts";
import { median } from "./statistics.ts";
import { formatTable } from "./text_table.ts";

const MB = 1_000_000;
const RESIDENT_LIMIT = 200 * MB;
const PIPE_RATIO = 1;
const BUILTIN_RATIO = 1.5;
/** Time allowed for one copy, milliseconds. */
const COPY_TIMEOUT_MS = 900_000;
/** Rows that were written more than a minute ago need no versions of their own: what a mesh mostly has. */
const SETTLED_MS = 75_000;
const TABLES = ["narrow", "wide", "long"] as const;
const WIDE_COLUMNS = Array.from({ length: 50 }, (_, i) => `c${i}`);

const SCHEMA =
  `CREATE TABLE narrow (id bigint PRIMARY KEY, account int, amount numeric(12, 2), at timestamptz, note text);
  CREATE TABLE wide (id int PRIMARY KEY, ${WIDE_COLUMNS.map((name) => `${name} int`).join(", ")});
  CREATE TABLE long (id int PRIMARY KEY, body text)`;

/** What was measured of one way. */
interface Measured {
  readonly seconds: number;
  /** Of both servers, and of both mmlite. */
  readonly processor: ProcessorTime;
  /** Resident memory of the two mmlite, bytes. */
  readonly memory?: readonly [number, number];
}

type Way = "mmlite" | "builtin" | "pipe";

async function fill({ publisher }: Bed, rows: number): Promise<void> {
  await publisher.sql(
    SOURCE,
    `INSERT INTO narrow SELECT g, g % 1000, g % 100000 / 100.0, now() - g * interval '1 s', 'note ' || md5(g::text)
       FROM generate_series(1, ${rows}) g`,
  );
  await publisher.sql(
    SOURCE,
    `INSERT INTO wide SELECT g, ${WIDE_COLUMNS.map((_, i) => `g * ${i + 1} % 10000`).join(", ")}
       FROM generate_series(1, ${Math.ceil(rows / 25)}) g`,
  );
  await publisher.sql(
    SOURCE,
    `INSERT INTO long SELECT g, (SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 1500) i)
       FROM generate_series(1, ${Math.ceil(rows / 2500)}) g`,
  );
  await publisher.sql(SOURCE, "VACUUM ANALYZE");
}

/** Both servers run on this machine, so a program of the one can feed a program of the other. */
async function byPipe({ name, bed }: Run): Promise<Measured> {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o777);
  try {
    const [began, before] = [performance.now(), await serverTimes(bed)];
    for (const table of TABLES) {
      const fifo = join(directory, table);
      await new Deno.Command("mkfifo", { args: ["-m", "666", fifo] }).output();
      await Promise.all([
        bed.publisher.sql(SOURCE, `COPY ${table} TO PROGRAM 'cat > ${fifo}'`),
        bed.subscriber.sql(name, `COPY ${table} FROM PROGRAM 'cat ${fifo}'`),
      ]);
    }
    const seconds = (performance.now() - began) / 1000;
    return { seconds, processor: timeBetween(before, await serverTimes(bed)) };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function byBuiltin({ name, bed }: Run): Promise<Measured> {
  const { publisher, subscriber } = bed;
  const [began, before] = [performance.now(), await serverTimes(bed)];
  await subscriber.sql(
    name,
    `CREATE SUBSCRIPTION ${name} CONNECTION 'host=127.0.0.1 port=${publisher.port} user=postgres dbname=${SOURCE}'
       PUBLICATION ${PUBLICATION} WITH (origin = none)`,
  );
  await eventually("the subscription to have copied", async () => {
    const [{ left }] = await subscriber.sql(
      name,
      "SELECT count(*)::int AS left FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')",
    );
    return left === 0;
  }, { timeoutMs: COPY_TIMEOUT_MS });
  const seconds = (performance.now() - began) / 1000;
  const processor = timeBetween(before, await serverTimes(bed));
  await subscriber.sql(name, `DROP SUBSCRIPTION ${name}`);
  return { seconds, processor };
}

function byMmlite(sender: Mmlite, issue: (node: string) => Promise<string>) {
  return async ({ name, bed }: Run): Promise<Measured> => {
    await using receiver = await startMmlite({
      ...{ name, postgres: bed.subscriber.url(name), tls: await issue(name) },
    });
    await request(sender, "PUT", `/v1/peers/${name}`, { url: receiver.peerUrl });
    await request(receiver, "PUT", `/v1/peers/${SENDER}`, { url: sender.peerUrl });
    await eventually("both links to stream", async () => {
      const peers = [
        await sender.api("GET", `/v1/peers/${name}`),
        await receiver.api("GET", `/v1/peers/${SENDER}`),
      ];
      return peers.every(({ json }) => json.state === "streaming" && json.inbound.state === "streaming");
    });
    const watches = [sender, receiver].map((node) => new MemoryWatch(() => node.pid));
    const times = async () => ({
      ...await serverTimes(bed),
      sender: await cpuSeconds(sender.pid!),
      receiver: await cpuSeconds(receiver.pid!),
    });
    const [began, before] = [performance.now(), await times()];
    const { json: { id } } = await receiver.api("POST", "/v1/jobs", { type: "copy", from: SENDER });
    await eventually("the rows to be copied", async () => {
      const { json: { state, error } } = await receiver.api("GET", `/v1/jobs/${id}`);
      if (error !== null) throw new Error(JSON.stringify(error));
      return state === "succeeded";
    }, { timeoutMs: COPY_TIMEOUT_MS });
    const seconds = (performance.now() - began) / 1000;
    const processor = timeBetween(before, await times());
    for (const watch of watches) watch.stop();
    const [given, taken] = watches.map(({ peak }) => peak);
    await request(sender, "DELETE", `/v1/peers/${name}?force=true`);
    await receiver[Symbol.asyncDispose]();
    await bed.subscriber.sql(name, `SELECT pg_drop_replication_slot('mmlite_${SENDER}')`);
    return { seconds, processor, memory: [given, taken] };
  };
}

async function measure(rows: number, runs: number): Promise<Record<Way, Measured[]>> {
  await using stack = new AsyncDisposableStack();
  const bed = await openBed(stack);
  await createDatabases(bed, { schema: SCHEMA });
  await fill(bed, rows);
  const filledAt = performance.now();
  const authority = await openAuthority(stack);
  const sender = await startSender(bed, stack, { tls: await authority.issue(SENDER) });
  const ways: Record<Way, (run: Run) => Promise<Measured>> = {
    pipe: byPipe,
    builtin: byBuiltin,
    mmlite: byMmlite(sender, (node) => authority.issue(node)),
  };
  const expected = await digestSource(bed);
  const measured: Record<Way, Measured[]> = { mmlite: [], builtin: [], pipe: [] };
  await eventually("the rows to be old", () => Promise.resolve(performance.now() - filledAt > SETTLED_MS), {
    timeoutMs: 2 * SETTLED_MS,
  });
  for (let number = 1; number <= runs; number++) {
    for (const [way, copy] of Object.entries(ways) as [Way, (run: Run) => Promise<Measured>][]) {
      const run = { name: `${way}_${number}`, bed };
      await createTarget(run);
      const result = await copy(run);
      if (await digestTarget(run) !== expected) {
        throw new Error(`${run.name} does not hold the rows of the source`);
      }
      await dropTarget(run);
      measured[way].push(result);
      console.log(`run ${number}, ${way}: ${result.seconds.toFixed(1)} s, ${describeProcessor(result)}`);
    }
  }
  return measured;
}

/** Of both servers and both mmlite, seconds. */
function describeProcessor({ processor, memory }: Measured): string {
  const used = Object.entries(processor).map(([part, seconds]) => `${part} ${seconds!.toFixed(2)}`).join(
    ", ",
  );
  const resident = memory === undefined
    ? ""
    : `; ${memory.map((bytes) => Math.round(bytes / MB)).join(" and ")} MB`;
  return `processor: ${used}${resident}`;
}

const { json, ...counts } = readOptions(import.meta.url, {
  rows: { type: "string", default: "5000000" },
  runs: { type: "string", default: "3" },
  json: { type: "string" },
});
const rows = wholeNumber(counts.rows, "--rows");
const runs = wholeNumber(counts.runs, "--runs");
const measured = await measure(rows, runs);
const seconds = (way: Way) => median(measured[way].map((one) => one.seconds));
const processor = (way: Way) =>
  median(measured[way].map((one) => Object.values(one.processor).reduce((sum, part) => sum + part, 0)));
const ratio = (way: Way) => median(measured[way].map((one, i) => one.seconds / measured.mmlite[i].seconds));
const memory = [0, 1].map((place) => Math.max(...measured.mmlite.map((one) => one.memory![place])));
console.log(
  formatTable([
    ["way", "seconds", "processor s", "rows/s", "mmlite is so many times as fast"],
    ...(["mmlite", "builtin", "pipe"] as const).map((way) => [
      way,
      seconds(way).toFixed(1),
      processor(way).toFixed(1),
      Math.round(rows / seconds(way)).toLocaleString("en"),
      way === "mmlite" ? "" : ratio(way).toFixed(2),
    ]),
  ]).join("\n"),
);
if (json !== undefined) await Deno.writeTextFile(json, `${JSON.stringify({ rows, measured }, null, 2)}\n`);
const holds = ratio("pipe") >= PIPE_RATIO && ratio("builtin") >= BUILTIN_RATIO &&
  memory.every((bytes) => bytes < RESIDENT_LIMIT);
console.log(
  `Copying ${rows.toLocaleString("en")} rows and two more tables, mmlite is ${
    ratio("pipe").toFixed(2)
  } times as fast as a pipe ` +
    `and ${ratio("builtin").toFixed(2)} times as fast as the built-in initial copy, in ` +
    `${memory.map((bytes) => Math.round(bytes / MB)).join(" and ")} MB${
      holds ? "" : ": less than was wanted"
    }.`,
);
process.exit(holds ? 0 : 1);
