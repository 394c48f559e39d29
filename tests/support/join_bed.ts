/**
 * Members that invite and hosts that join, for tests: real servers and processes, certificates made by the program.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type CommandResult, type Mmlite, runMmlite, startMmlite } from "./mmlite.ts";
import { eventually } from "./poll.ts";
import type { PostgresServer } from "./postgres.ts";
import { makeScratch, removeScratch } from "./scratch.ts";

/** What every database of the tests begins with. */
export const JOIN_SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)";

/** A database with a node beside it, or about to be one. */
export interface JoinPlace {
  readonly server: PostgresServer;
  readonly database: string;
}

/** A cluster's first member, and a directory for files. */
export interface JoinBed extends AsyncDisposable {
  readonly member: Mmlite;
  readonly directory: string;
  /** Where the member's certificate files are, the CA's key among them. */
  readonly tls: string;
  /** A token of the member. */
  invite(...args: string[]): Promise<string>;
}

/** Makes a CA and starts the first member on a database that is made for it. */
export async function startJoinBed(
  { server, name, cluster = "mmlite", extraArgs = [] }: {
    server: PostgresServer;
    name: string;
    cluster?: string;
    extraArgs?: readonly string[];
  },
): Promise<JoinBed> {
  await using stack = new AsyncDisposableStack();
  const directory = await makeScratch("join");
  stack.defer(() => removeScratch(directory));
  const tls = join(directory, "tls");
  const made = await runMmlite(["cert", "ca", "--cluster", cluster, "--out", tls]);
  assert.equal(made.code, 0, made.stderr);
  await makeDatabase({ server, database: name });
  const member = stack.use(
    await startMmlite({
      name,
      postgres: server.url(name),
      tls,
      extraArgs: ["--cluster", cluster, "--log-level", "debug", ...extraArgs],
    }),
  );
  const owned = stack.move();
  const invite = (...args: string[]) => inviteAt(member, ...args);
  return { member, directory, tls, invite, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** A token of a member. */
export async function inviteAt(member: Mmlite, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await member.cli("invite", ...args);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^mmlite1_\S+\n$/);
  assert.ok(!stderr.includes(stdout.trim()));
  return stdout.trim();
}

/** Makes a database with the tables of the tests. */
export async function makeDatabase({ server, database }: JoinPlace): Promise<void> {
  await server.createDatabase(database);
  await server.sql(database, JOIN_SCHEMA);
}

/** Starts `mmlite join` as a node of its own; `command` says the words of each start. */
export async function startJoining(
  { server, database }: JoinPlace,
  command: () => readonly string[],
  options: { name?: string; extraArgs?: readonly string[]; awaitReady?: boolean } = {},
): Promise<Mmlite> {
  return await startMmlite({
    name: options.name ?? database,
    postgres: server.url(database),
    tables: [],
    command,
    extraArgs: ["--log-level", "debug", ...options.extraArgs ?? []],
    awaitReady: options.awaitReady ?? true,
  });
}

/** Runs `mmlite join` to its end, for joins that fail. */
export async function runJoin(
  { server, database }: JoinPlace,
  words: readonly string[],
  { state, args = [] }: { readonly state: string; readonly args?: readonly string[] },
): Promise<CommandResult> {
  return await runMmlite([
    ...["join", ...words, "--name", database, "--postgres", server.url(database), "--state", state],
    ...["--listen", "127.0.0.1:1", "--api", "127.0.0.1:0", ...args],
  ]);
}

/** The `mmlite run …` line that a join has printed, without the program. */
export async function printedRunLine(node: Mmlite): Promise<string[]> {
  const line = (await node.log()).split("\n").find((line) => line.startsWith("mmlite run "));
  assert.ok(line, await node.log());
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", `mmlite() { for word; do printf '%s\\n' "$word"; done; }\n${line}`],
  }).output();
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}

/** Waits until every link of a node streams, and there are as many as said. */
export async function streaming(node: Mmlite, peers: number): Promise<void> {
  await eventually(`${node.name} to stream to ${peers}`, async () => {
    const { json } = await node.api("GET", "/v1/peers");
    const states = json.items.map(({ name, state, last_error: error }: Record<string, unknown>) =>
      state === "streaming" ? state : `${name} is ${state}: ${JSON.stringify(error)}`
    );
    if (states.length === peers && states.every((state: string) => state === "streaming")) return true;
    throw new Error(states.join("; ") || "no peers");
  });
}

/** The replication slots of a server, by name. */
export async function slotsOf(server: PostgresServer): Promise<string[]> {
  const rows = await server.sql("postgres", "SELECT slot_name FROM pg_replication_slots ORDER BY 1");
  return rows.map(({ slot_name }) => slot_name);
}
