/**
 * `deno task two-hosts`: from two bare hosts to a converged pair, with the commands that a person would type, each
 * printed before it runs, and the time that it took.
 *
 * The hosts are two network namespaces with one cable (veth) between them; on each there are PostgreSQL, with the same
 * empty tables, and mmlite: what MMLITE_PROGRAM names, else `dist/mmlite`, else the sources. Needs root and Linux.
 */
import { join } from "node:path";
import process from "node:process";
import { openLeash } from "../tests/support/leash.ts";
import { mmliteProgram } from "../tests/support/mmlite.ts";
import { eventually, within } from "../tests/support/poll.ts";
import { type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { signalProcess } from "../tests/support/processes.ts";
import { makeScratch, removeScratch } from "../tests/support/scratch.ts";
import { createSchema, DATABASE, digestTables, startWriter } from "./demo_workload.ts";
import { namespaceProblem, run } from "./link/namespaces.ts";
import { readOptions } from "./options.ts";

const ROOT = join(import.meta.dirname!, "..");
/** How long each host writes once both stream, milliseconds. */
const WRITING_MS = 3_000;
/** How long any step may take, milliseconds. */
const STEP_TIMEOUT_MS = 60_000;
/** A node has this long to end, milliseconds. */
const STOP_TIMEOUT_MS = 15_000;

interface Host {
  readonly name: string;
  readonly address: string;
  readonly server: PostgresServer;
  /** Runs a line in the host's shell, printed as it is typed; what it printed on standard output. */
  type(line: string): Promise<string>;
  /** The same for a line that stays in the foreground. */
  start(line: string): Promise<void>;
  /** Runs a line without a word about it; whether it exited with 0. */
  quietly(line: string): Promise<boolean>;
}

async function playThrough(stack: AsyncDisposableStack): Promise<string> {
  const directory = await makeScratch("hosts");
  stack.defer(() => removeScratch(directory));
  const program = await installProgram(directory);
  const sites = await layCable(stack, ["ams", "fra"]);
  const [ams, fra] = await Promise.all(sites.map((site) => openHost(stack, { ...site, directory })));
  console.log(`Two hosts with PostgreSQL 18 and the same empty tables; mmlite is ${program}\n`);

  const began = performance.now();
  await ams.type("mmlite cert ca");
  await ams.start(
    `mmlite run --name ams --postgres ${urlOf(ams)} --tables 'public.*' --listen ${ams.address}:7432`,
  );
  await eventually("ams to be ready", () => ams.quietly("mmlite status"), { timeoutMs: STEP_TIMEOUT_MS });
  await ams.type("mmlite invite > token");
  console.log("# the token is handed over, as a password would be");
  await Deno.copyFile(join(directory, "ams/token"), join(directory, "fra/token"));
  await fra.start(`mmlite join - --name fra --postgres ${urlOf(fra)} --listen ${fra.address}:7432 < token`);
  const hasJoined = () => fra.quietly("grep -q '^mmlite run ' log");
  await eventually("fra to have joined", hasJoined, { timeoutMs: STEP_TIMEOUT_MS });
  await fra.type("sed '/^mmlite run /q' log");
  await ams.server.sql(DATABASE, "INSERT INTO departments VALUES ('ams', 'ams', 'Engineering')");
  await fra.server.sql(DATABASE, "INSERT INTO departments VALUES ('fra', 'fra', 'Sales')");
  await eventually("the first row of each host to be on the other", () => areEqual(ams, fra, 2), {
    timeoutMs: STEP_TIMEOUT_MS,
    intervalMs: 20,
  });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`\n${seconds} s after the first command, a row written on each host is on the other.\n`);
  await ams.type("mmlite status");
  return await writeOnBoth(ams, fra, seconds);
}

async function writeOnBoth(ams: Host, fra: Host, seconds: string): Promise<string> {
  const signal = AbortSignal.timeout(WRITING_MS);
  const writers = [ams, fra].map(({ name, server }) => startWriter(server, { node: name, signal }));
  await Promise.all(writers.map(({ done }) => done));
  await eventually("the hosts to be equal", () => areEqual(ams, fra), { timeoutMs: STEP_TIMEOUT_MS });
  const rows = (await digestTables(ams.server)).reduce((sum, table) => sum + table.rows, 0);
  const transactions = writers.reduce((sum, writer) => sum + writer.transactions, 0);
  return `Two bare hosts became a converged pair in ${seconds} s; after ${transactions} transactions on both they ` +
    `hold the same ${rows} rows.`;
}

/** Whether both hosts hold the same rows, as many departments as said. */
async function areEqual(ams: Host, fra: Host, departments?: number): Promise<boolean> {
  const [left, right] = await Promise.all([ams, fra].map(({ server }) => digestTables(server)));
  return JSON.stringify(left) === JSON.stringify(right) &&
    (departments === undefined || left[0].rows === departments);
}

function urlOf({ server }: Host): string {
  return `'${server.url(DATABASE)}'`;
}

/** A program `mmlite` on the hosts' PATH; what it is. */
async function installProgram(directory: string): Promise<string> {
  const binary = join(ROOT, "dist/mmlite");
  const isBuilt = await Deno.stat(binary).then(() => true, () => false);
  const words = !Deno.env.get("MMLITE_PROGRAM") && isBuilt ? [binary] : mmliteProgram();
  await Deno.mkdir(join(directory, "bin"));
  const text = `#!/bin/sh\nexec ${words.map((word) => `'${word}'`).join(" ")} "$@"\n`;
  await Deno.writeTextFile(join(directory, "bin/mmlite"), text, { mode: 0o755 });
  return words.join(" ");
}

interface Site {
  readonly name: string;
  readonly address: string;
  /** Words to put before a command line. */
  readonly enter: readonly string[];
}

/** Two namespaces and the cable between them. */
async function layCable(stack: AsyncDisposableStack, names: readonly string[]): Promise<Site[]> {
  // Namespaces and devices are the machine's: another run at the same time must not meet them.
  const prefix = `mm${Deno.pid}`;
  const sites = names.map((name, index) => ({
    name,
    namespace: `${prefix}-${name}`,
    address: `10.78.0.${index + 1}`,
    device: `${prefix}v${index}`,
    enter: ["ip", "netns", "exec", `${prefix}-${name}`],
  }));
  for (const { namespace } of sites) {
    await run("ip", "netns", "add", namespace);
    stack.defer(() => run("ip", "netns", "delete", namespace));
  }
  await run("ip", "link", "add", sites[0].device, "type", "veth", "peer", "name", sites[1].device);
  for (const { namespace, device, address, enter } of sites) {
    await run("ip", "link", "set", device, "netns", namespace);
    await run(...enter, "ip", "address", "add", `${address}/24`, "dev", device);
    for (const one of ["lo", device]) await run(...enter, "ip", "link", "set", one, "up");
  }
  return sites;
}

async function openHost(
  stack: AsyncDisposableStack,
  { name, address, enter, directory }: Site & { directory: string },
): Promise<Host> {
  const server = stack.use(await startPostgres({ major: 18, enter }));
  await createSchema(server);
  const home = join(directory, name);
  await Deno.mkdir(home);
  const env = {
    PATH: `${directory}/bin:/usr/bin:/bin`,
    HOME: home,
    // Two hosts would have a default of their own.
    MMLITE_STATE: join(home, "state"),
    // For the sources only.
    DENO_DIR: Deno.env.get("DENO_DIR") ?? join(Deno.env.get("HOME") ?? "", ".cache/deno"),
  };
  const shell = (line: string) => {
    const [first, ...words] = [...enter, "sh", "-c", line];
    return { first, options: { args: words, clearEnv: true, env, cwd: home, stdin: "null" as const } };
  };
  const prompt = `${name}$`;
  return {
    name,
    address,
    server,
    type: async (line) => {
      console.log(`${prompt} ${line}`);
      const { first, options } = shell(line);
      const { success, stdout, stderr } = await new Deno.Command(first, options).output();
      const [data, notes] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      for (const text of [data, notes]) if (text !== "") console.log(indent(text));
      if (!success) throw new Error(`"${line}" failed on ${name}`);
      return data;
    },
    quietly: async (line) => {
      const { first, options } = shell(line);
      return (await new Deno.Command(first, { ...options, stdout: "null", stderr: "null" }).output()).success;
    },
    start: async (line) => {
      console.log(`${prompt} ${line} &`);
      // `exec`: what is ended later is the node, not a shell that leaves it behind.
      const { first, options } = shell(`exec ${line} > log 2>&1`);
      const child = new Deno.Command(first, { ...options, stdout: "null", stderr: "inherit" }).spawn();
      const leash = openLeash(join(home, "state"));
      await leash.hold(child.pid);
      stack.defer(async () => {
        signalProcess(child.pid, "SIGTERM");
        await within(`${name} to end`, STOP_TIMEOUT_MS, child.status);
        await leash.release();
      });
    },
  };
}

function indent(text: string): string {
  return text.trimEnd().split("\n").map((line) => `    ${line}`).join("\n");
}

async function main(): Promise<number> {
  readOptions(import.meta.url, {});
  const why = await namespaceProblem();
  if (why !== undefined) {
    console.error(`Cannot make two hosts: ${why}`);
    return 1;
  }
  try {
    await using stack = new AsyncDisposableStack();
    console.log(await playThrough(stack));
    return 0;
  } catch (thrown) {
    console.error(
      `The two hosts did not become a pair: ${thrown instanceof Error ? thrown.message : thrown}`,
    );
    return 1;
  }
}

if (import.meta.main) process.exit(await main());
