/** What systemd hears of a node whose unit is contrib/mmlite.service, and what the unit promises. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ERROR_POLICY } from "../src/errors.ts";
import { runMmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { signalProcess } from "./support/processes.ts";
import { removeScratch, scratchBase } from "./support/scratch.ts";

const UNIT = join(import.meta.dirname!, "../contrib/mmlite.service");

interface ListeningManager extends AsyncDisposable {
  /** For a process of the manager. */
  readonly env: Readonly<Record<string, string>>;
  /** The states that it has been told, in order. */
  heard(): Promise<string[]>;
}

/** A service manager: its program `systemd-notify` writes down what it is told. */
async function startManager(): Promise<ListeningManager> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-service-" });
  const file = join(directory, "heard");
  const program = `#!/bin/sh\nprintf '%s\\n' "$1" >>"${file}"\n`;
  await Deno.writeTextFile(join(directory, "systemd-notify"), program, { mode: 0o755 });
  return {
    env: { PATH: `${directory}:${Deno.env.get("PATH")}`, NOTIFY_SOCKET: join(directory, "socket") },
    heard: async () => (await Deno.readTextFile(file).catch(() => "")).split("\n").filter(Boolean),
    [Symbol.asyncDispose]: () => removeScratch(directory),
  };
}

Deno.test("systemd hears that a node is ready when it is, that it reloads, and that it stops", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.createDatabase("app");
  await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY)");
  await using manager = await startManager();
  const hears = (states: string[]) =>
    eventually(`systemd to hear ${states}`, async () => {
      assert.deepEqual(await manager.heard(), states);
      return true;
    });

  const options = { name: "a", postgres: server.url("app"), env: manager.env, awaitReady: false };
  await using node = await startMmlite(options);
  await hears(["READY=1"]);
  assert.equal((await node.api("GET", "/readyz")).status, 200);
  const { pid } = node;

  node.signal("SIGHUP");
  await hears(["READY=1", "RELOADING=1", "READY=1"]);
  assert.equal(node.pid, pid);

  assert.equal(await node.stop(), 0, await node.log());
  await hears(["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
});

Deno.test("a node ends in time although PostgreSQL answers nothing", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.createDatabase("app");
  await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY)");
  await using node = await startMmlite({ name: "a", postgres: server.url("app") });
  const backends = await server.sql(
    "postgres",
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = 'app'",
  );
  assert.notEqual(backends.length, 0);
  for (const { pid } of backends) signalProcess(pid, "SIGSTOP");
  try {
    assert.equal(await node.stop(), 143, await node.log());
    assert.match(await node.log(), /Ending without an answer of PostgreSQL/);
  } finally {
    for (const { pid } of backends) signalProcess(pid, "SIGCONT");
  }
});

Deno.test("the unit starts mmlite as it can be started, and gives up only what does not mend by itself", async () => {
  const unit = await Deno.readTextFile(UNIT);
  const valueOf = (key: string) => unit.match(new RegExp(`^${key}=(.*)$`, "m"))![1];

  const flags = valueOf("ExecStart").match(/--[a-z-]+/g)!;
  const help = await runMmlite(["run", "--help"]);
  for (const flag of flags) assert.match(help.stdout, new RegExp(`${flag} `));

  const { usage, unauthenticated, forbidden, config } = ERROR_POLICY;
  const given = new Set(valueOf("RestartPreventExitStatus").split(" ").map(Number));
  assert.deepEqual(
    given,
    new Set([usage, unauthenticated, forbidden, config].map(({ exitCode }) => exitCode)),
  );
});
