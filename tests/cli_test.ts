/**
 * The command line as people meet it: real processes, against nothing, files, and a control API without a node.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { parseArgs } from "node:util";
import { createApi } from "../src/api/app.ts";
import { serveApi } from "../src/api/server.ts";
import { formatAddress } from "../src/config/address.ts";
import { httpRequest, type TestResponse } from "./support/http_request.ts";
import { type CommandResult, mmliteProgram, runMmlite } from "./support/mmlite.ts";
import { freePort, removeScratch, scratchBase } from "./support/scratch.ts";
import { createTestControl, type TestControl, testPeer, testTable } from "./support/test_control.ts";

interface World {
  /** Of this test alone. */
  readonly directory: string;
  /** Runs mmlite in a home without configuration. */
  run(...args: string[]): Promise<CommandResult>;
  /** Writes a file into the directory; its path. */
  write(name: string, text: string, mode?: number): Promise<string>;
}

async function inWorld(test: (world: World) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-cli-" });
  try {
    await test({
      directory,
      run: (...args) => runMmlite(args, { env: { XDG_CONFIG_HOME: directory }, cwd: directory }),
      write: async (name, text, mode = 0o600) => {
        const path = join(directory, name);
        await Deno.writeTextFile(path, text, { mode });
        return path;
      },
    });
  } finally {
    await removeScratch(directory);
  }
}

interface ApiWorld extends World {
  readonly control: TestControl;
  /** Where its control API listens on TCP. */
  readonly address: string;
  readonly socket: string;
}

async function withApi(token: string | undefined, test: (world: ApiWorld) => Promise<void>): Promise<void> {
  await inWorld(async (world) => {
    const control = createTestControl({
      peers: [testPeer("fra", "http://fra:7432")],
      tables: [testTable("public", "t")],
    });
    const socket = join(world.directory, "api.sock");
    const wanted = { host: "127.0.0.1", port: 0 };
    const api = createApi({ control, version: "1.2.3", address: wanted, token });
    const server = await serveApi({ api, address: wanted, socketPath: socket });
    try {
      await test({ ...world, control, socket, address: formatAddress(server.address!) });
    } finally {
      await server.close();
    }
  });
}

/**
 * Runs a curl line in a shell and does what it says. The shell takes the words apart and reads the token; curl
 * itself, which not every machine has, is this function.
 */
async function runCurlLine(line: string): Promise<TestResponse> {
  const script = `curl() { for word; do printf '%s\\n' "$word"; done; }\n${line}`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", script], stdin: "null" }).output();
  const words = new TextDecoder().decode(stdout).trimEnd().split("\n");
  const url = new URL(words.pop()!);
  const { values } = parseArgs({
    args: words,
    options: {
      silent: { type: "boolean", short: "s" },
      "show-error": { type: "boolean", short: "S" },
      request: { type: "string", short: "X" },
      header: { type: "string", short: "H", multiple: true },
      data: { type: "string", short: "d" },
      "unix-socket": { type: "string" },
    },
  });
  const socketPath = values["unix-socket"];
  return await httpRequest({
    to: socketPath === undefined ? { port: Number(url.port) } : { socketPath },
    method: values.request,
    path: `${url.pathname}${url.search}`,
    headers: Object.fromEntries(values.header?.map((header) => header.split(": ", 2)) ?? []),
    body: values.data,
  });
}

/** Fails unless a command ended with the exit code, said this on standard error, and nothing on the other. */
function assertFailed(
  { code, stdout, stderr }: CommandResult,
  expected: { code: number; says: RegExp[] },
): void {
  assert.equal(code, expected.code, stderr);
  assert.equal(stdout, "");
  for (const says of expected.says) assert.match(stderr, says);
}

Deno.test("no argument prints the help", () =>
  inWorld(async ({ run }) => {
    const bare = await run();
    assert.deepEqual(bare, await run("--help"));
    assert.equal(bare.code, 0);
    for (const command of ["run", "init", "status", "peers", "tables", "conflicts", "config", "version"]) {
      assert.match(bare.stdout, new RegExp(`^  ${command}\\b`, "m"));
    }
  }));

Deno.test("wrong usage is a sentence, a suggestion, and 64", () =>
  inWorld(async ({ run }) => {
    const wrong: [string[], RegExp[]][] = [
      [["statu"], [/^error: Unknown command 'statu'$/m, /^hint: Did you mean status\?$/m]],
      [["run", "--nam", "ams"], [/^error: Unknown option '--nam'$/m, /^hint: Did you mean --name\?$/m]],
      [["peers", "lst"], [/^error: Unknown command 'lst'$/m, /^hint: Did you mean list\?$/m]],
      [["peers", "add"], [/^error: Missing required argument 'NAME'$/m]],
      [["peers"], [/^Usage: mmlite peers/m, /^error: No command is given$/m]],
      [["-o", "xml", "status"], [/Allowed choices are table, json, yaml$/m]],
      [["status", "--watch", "2"], [/^error: Cannot watch every "2": /m]],
      [["status", "--api", "nowhere"], [/^error: Cannot use --api "nowhere": it is no address$/m]],
      [["run", "--as-curl"], [/^error: Cannot print `mmlite run` as curl/m]],
    ];
    await Promise.all(
      wrong.map(async ([args, says]) => assertFailed(await run(...args), { code: 64, says })),
    );
  }));

Deno.test("with -o json an error is JSON too", () =>
  inWorld(async ({ run }) => {
    const { code, stdout, stderr } = await run("-o", "json", "status", "--api", `127.0.0.1:${freePort()}`);
    assert.deepEqual([code, stdout], [69, ""]);
    const { kind, status, detail, hint } = JSON.parse(stderr);
    assert.deepEqual([kind, status], ["unreachable", 503]);
    assert.match(detail, /^Cannot reach the control API/);
    assert.match(hint, /Is mmlite running/);
  }));

Deno.test("the version needs no node", () =>
  inWorld(async ({ run }) => {
    const { version } = JSON.parse(await Deno.readTextFile(join(import.meta.dirname!, "../deno.json")));
    assert.match(
      (await run("version")).stdout,
      new RegExp(`^mmlite ${version} (\\(\\w+(-dirty)?\\) )?on (deno|node) \\d`),
    );
    assert.equal((await run("--version")).stdout, `mmlite ${version}\n`);
    const about = JSON.parse((await run("version", "-o", "json")).stdout);
    assert.deepEqual(Object.keys(about), ["name", "version", "commit", "runtime", "target"]);
    assert.deepEqual([about.name, about.version], ["mmlite", version]);
  }));

Deno.test("run without anything says what is the least", () =>
  inWorld(async ({ run }) => {
    const says = [/^error: Cannot run a node without node\.name/m, /^hint: The least is `mmlite run --name/m];
    assertFailed(await run("run"), { code: 78, says });
    assertFailed(await run("init", "--dry-run"), { code: 78, says });
  }));

Deno.test("a wrong file is named with line and column", () =>
  inWorld(async ({ run, write }) => {
    const wrong: [string, RegExp[]][] = [
      ["node: {\n", [/^error: Cannot read .*m\.yaml:\d+:\d+: /m]],
      ["node: { nam: ams }", [/m\.yaml:1:9: unknown key "node\.nam"$/m, /^hint: Did you mean "name"\?$/m]],
      ["node: { name: 7 }", [/m\.yaml:1:15: node\.name is wrong, expected text, not a number$/m]],
    ];
    for (const [text, says] of wrong) {
      const file = await write("m.yaml", text);
      for (const command of [["config", "check"], ["run"], ["status"]]) {
        assertFailed(await run(...command, "-c", file), { code: 78, says });
      }
    }
  }));

Deno.test("config check tells which database is meant, and what a malformed URL should be", () =>
  inWorld(async ({ run }) => {
    const least = ["config", "check", "--name", "ams", "--tables", "public.*", "--postgres"];
    const { code, stdout } = await run(...least, "postgres://app:secret@db.example:6432/shop");
    assert.deepEqual([code, stdout], [
      0,
      "The configuration is right: node ams of cluster mmlite, database shop at db.example:6432, peers in " +
      "cleartext\n",
    ]);
    const wrong = await run(...least, "postgres://app:secret@db:port/shop");
    assertFailed(wrong, { code: 78, says: [/^error: Cannot read the PostgreSQL URL/m] });
    assert.doesNotMatch(wrong.stderr, /secret/);
  }));

Deno.test("config show masks the password and tells where each value came from", () =>
  inWorld(async ({ run, write }) => {
    const file = await write(
      "m.yaml",
      "node: { name: ams }\npostgres: { url: postgres://app:secret@db/shop }",
    );
    const flags = ["-c", file, "--log-level", "debug"];
    const table = await run("config", "show", "--origin", ...flags);
    assert.match(table.stdout, /^node\.name +ams +.*m\.yaml:1:15$/m);
    assert.match(table.stdout, /^postgres\.url +postgres:\/\/app:\*\*\*@db\/shop +.*m\.yaml:2:18$/m);
    assert.match(table.stdout, /^log\.level +debug +--log-level$/m);
    assert.match(table.stdout, /^node\.cluster +mmlite +default$/m);
    const tree = JSON.parse((await run("config", "show", "-o", "json", ...flags)).stdout);
    assert.deepEqual([tree.node.name, tree.postgres.url], ["ams", "postgres://app:***@db/shop"]);
    const yaml = await write("shown.yaml", (await run("config", "show", "-o", "yaml", ...flags)).stdout);
    assert.equal((await run("config", "show", "-c", yaml)).code, 0);
  }));

Deno.test("config schema is a JSON Schema", () =>
  inWorld(async ({ run }) => {
    const schema = JSON.parse((await run("config", "schema")).stdout);
    assert.equal(schema.properties.node.properties.name.type, "string");
  }));

Deno.test("a variable that means nothing is warned of", () =>
  inWorld(async ({ directory }) => {
    const env = { XDG_CONFIG_HOME: directory, MMLITE_LISTN: "127.0.0.1:1" };
    const { code, stderr } = await runMmlite(["config", "show"], { env });
    assert.deepEqual([code, stderr], [
      0,
      "warning: MMLITE_LISTN means nothing to mmlite; did you mean MMLITE_LISTEN?\n",
    ]);
  }));

Deno.test("nobody listening is 69, over TCP and over the socket", () =>
  inWorld(async ({ run, directory }) => {
    const says = [/^error: Cannot reach the control API at /m, /^hint: Is mmlite running here\?/m];
    assertFailed(await run("status", "--api", `127.0.0.1:${freePort()}`), { code: 69, says });
    assertFailed(await run("status", "--api", `unix:${directory}/none.sock`), { code: 69, says });
    const verbose = await run("-v", "peers", "list", "--api", `unix:${directory}/none.sock`);
    assertFailed(verbose, { code: 69, says: [/^cause: .*ENOENT/m] });
  }));

Deno.test("something else than a control API is 70", () =>
  inWorld(async ({ run }) => {
    await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () =>
      new Response("hello"));
    const result = await run("status", "--api", `http://127.0.0.1:${server.addr.port}/`);
    assertFailed(result, {
      code: 70,
      says: [/^error: Cannot understand 127\.0\.0\.1:\d+: HTTP status 200/m],
    });
  }));

Deno.test("status prints the node, and says by its exit code whether somebody has to act", () =>
  withApi(undefined, async ({ run, address, control }) => {
    const blocked = await run("status", "--api", address);
    assert.equal(blocked.code, 1);
    assert.match(blocked.stdout, /^node +ready +ams of cluster test/m);
    assert.match(blocked.stdout, /^tls +off \(insecure\)$/m);
    assert.match(blocked.stdout, /^postgres +connected +PostgreSQL 18\.4, database app/m);
    assert.match(blocked.stdout, /^fra +streaming +0\/1B +0\/1A +1 B +0\.0 s +blocked +http:\/\/fra:7432$/m);
    assert.match(blocked.stdout, /^from fra: Cannot apply\n {2}hint: Add the column$/m);
    const peer = testPeer("fra", "http://fra:7432");
    control.peers.set("fra", { ...peer, inbound: { ...peer.inbound, state: "streaming", last_error: null } });
    assert.equal((await run("status", "--api", address)).code, 0);
    control.state = { ready: false, checks: [] };
    const { code, stdout } = await run("status", "--api", address, "-o", "json");
    assert.deepEqual([code, JSON.parse(stdout).ready], [1, false]);
  }));

Deno.test("status --watch looks again until a signal, a JSON line each time", () =>
  withApi(undefined, async ({ address, control }) => {
    control.state = { ready: false, checks: [] };
    const [program, ...first] = mmliteProgram();
    const child = new Deno.Command(program, {
      args: [...first, "status", "--watch", "100ms", "-o", "json", "--api", address],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    let looks = 0;
    for await (const line of createInterface({ input: Readable.from(child.stdout) })) {
      assert.equal(JSON.parse(line).ready, looks > 0);
      control.state = { ready: true, checks: [] };
      if (++looks === 3) child.kill("SIGTERM");
    }
    assert(looks >= 3);
    // The peer is blocked, so the last answer is no.
    assert.equal((await child.status).code, 1);
  }));

Deno.test("output that nobody reads is no failure", () =>
  inWorld(async ({ write }) => {
    const errors = await write("errors", "");
    const words = [...mmliteProgram(), "config", "schema"];
    const { success } = await new Deno.Command("sh", {
      args: ["-c", 'errors=$1; shift; "$@" 2>"$errors" | true', "sh", errors, ...words],
      stdin: "null",
    }).output();
    assert(success);
    assert.equal(await Deno.readTextFile(errors), "");
  }));

Deno.test("peers are added, paused, resumed, retried, listed and removed", () =>
  withApi(undefined, async ({ run, socket, control }) => {
    const at = (...args: string[]) => run("--api", `unix:${socket}`, ...args);
    assert.deepEqual(await at("peers", "add", "nyc", "http://nyc:7432"), {
      code: 0,
      stdout: "",
      stderr: 'Peer "nyc" is added\n',
    });
    assert.equal((await at("peers", "add", "nyc", "http://nyc:7433")).stderr, 'Peer "nyc" is set\n');
    assert.equal(control.peers.get("nyc")?.url, "http://nyc:7433");
    assert.equal((await at("peers", "add", "edge")).stderr, 'Peer "edge" is added, and dials this node\n');
    assert.equal(control.peers.get("edge")?.url, null);
    control.peers.set("edge", { ...testPeer("edge", null), state: "connecting", awaits_dial: true });
    assert.match((await at("peers", "list")).stdout, /^edge +connecting \(it has to dial\) .* -$/m);
    assert.match(
      (await at("peers", "list")).stdout,
      /^to edge: what is written here waits until edge dials/m,
    );
    assert.equal((await at("peers", "pause", "nyc")).stderr, 'Peer "nyc" is paused\n');
    assert.equal(control.peers.get("nyc")?.state, "paused");
    assert.match((await at("peers", "list")).stdout, /^nyc +paused .*http:\/\/nyc:7433$/m);
    const resumed = await at("peers", "resume", "nyc", "-o", "json");
    assert.deepEqual([JSON.parse(resumed.stdout).state, resumed.stderr], ["connecting", ""]);
    assert.equal((await at("-q", "peers", "retry", "nyc")).stderr, "");
    assert.deepEqual(control.retried, ["nyc"]);
    assert.match((await at("peers", "remove", "nyc")).stderr, /goes once everything is delivered/);
    assert.equal((await at("peers", "remove", "nyc", "--force")).stderr, 'Peer "nyc" is removed\n');
    const listed = JSON.parse((await at("peers", "list", "-o", "json")).stdout);
    assert.deepEqual(listed.items.map(({ name }: { name: string }) => name), ["fra", "edge"]);
  }));

Deno.test("what the control API refuses is printed with its hint and exit code", () =>
  withApi(undefined, async ({ run, address }) => {
    const at = (...args: string[]) => run("--api", address, ...args);
    const missing = await at("peers", "pause", "nyc");
    assertFailed(missing, {
      code: 1,
      says: [/^error: Cannot find peer "nyc"/m, /^hint: List what there is/m],
    });
    assertFailed(await at("peers", "add", "nyc", "nyc:7432"), { code: 64, says: [/^error: .*http/m] });
    assertFailed(await at("peers", "add", "NYC", "http://nyc:7432"), {
      code: 64,
      says: [/^error: .*lower-case/m],
    });
  }));

Deno.test("tables are listed", () =>
  withApi(undefined, async ({ run, address }) => {
    const { code, stdout } = await run("tables", "list", "--api", address);
    assert.deepEqual([code, stdout.split("\n")[1]], [
      0,
      "public.t  replicated  id   12            last_update_wins",
    ]);
    assert.match(
      (await run("tables", "list", "--api", address, "-o", "yaml")).stdout,
      /^items:\n {2}- schema: public\n/,
    );
  }));

Deno.test("policies of tables are set and taken back, and marks are cleared", () =>
  withApi(undefined, async ({ run, address, control }) => {
    const at = (...args: string[]) => run("tables", ...args, "--api", address);
    const set = await at(
      "policy",
      "public.t",
      "error",
      "--type",
      "update_missing=keep_local",
      "--allow-divergence",
    );
    assert.deepEqual([set.code, set.stderr], [
      0,
      "Conflicts of table public.t are settled by error (update_missing: keep_local), set here\n",
    ]);
    assert.match(
      (await at("list")).stdout,
      /^public\.t +replicated .* error \(update_missing: keep_local\), set here$/m,
    );
    const dry = await at("policy", "public.t", "--reset", "--dry-run");
    assert.equal(dry.stderr, "Conflicts of table public.t would be settled by last_update_wins\n");
    assert.equal(control.tables[0].policy, "error");
    assert.equal(
      JSON.parse((await at("policy", "public.t", "--reset", "-o", "json")).stdout).policy_from,
      "default",
    );
    const wrong: [string[], RegExp][] = [
      [["policy", "public.t"], /^error: Missing required argument 'POLICY'$/m],
      [["policy", "public.t", "error", "--reset"], /^error: Cannot set a policy and --reset it$/m],
      [["policy", "public.t", "error", "--type", "update_missing"], /^error: .*expected TYPE=POLICY$/m],
      [["policy", "public.t", "newest"], /^error: .*\/policy: /m],
    ];
    for (const [args, says] of wrong) assertFailed(await at(...args), { code: 64, says: [says] });
    control.tables[0] = {
      ...control.tables[0],
      diverged: { since: "2026-11-22T10:00:00Z", reason: "one was lost" },
    };
    assert.match((await at("list")).stdout, /^public\.t +diverged .* one was lost$/m);
    assert.equal(
      (await at("clear", "public.t")).stderr,
      "Table public.t counts as equal on all nodes again\n",
    );
    assert.equal(control.tables[0].diverged, null);
  }));

Deno.test("conflicts are listed and shown", () =>
  withApi(undefined, async ({ run, address, control }) => {
    const at = (...args: string[]) => run("conflicts", ...args, "--api", address);
    const { code, stdout, stderr } = await at(
      "list",
      "--since",
      "1h",
      "--table",
      "public.users",
      "--limit",
      "1",
    );
    assert.deepEqual([code, stdout.split("\n")[1]], [
      0,
      '2   2026-11-22T10:00:01.000001Z  public.users  update_origin_differs  applied     fra   {"id":1}',
    ]);
    assert.match(stderr, /^There are more/);
    assert.match((await at("list", "--type", "update_missing")).stdout, /^no conflicts$/m);
    const shown = await at("show", "1");
    assert.match(shown.stdout, /^change +update, in the transaction that ends at 16\/B374D848$/m);
    assert.match(shown.stdout, /^node +ams +fra$/m);
    assert.match(shown.stdout, /^ {2}name +"here" +"there"$/m);
    assert.equal(JSON.parse((await at("show", "1", "-o", "json")).stdout).remote.row.name, "there");
    control.conflicts.length = 0;
    assertFailed(await at("show", "1"), { code: 1, says: [/^error: Cannot find conflict 1/m] });
    assertFailed(await at("show", "x"), {
      code: 64,
      says: [/^error: Cannot show conflict "x": it is no id$/m],
    });
    assertFailed(await at("list", "--since", "soon"), { code: 64, says: [/it is no time$/m] });
    const line = (await at("list", "--since", "1h", "--as-curl")).stdout;
    assert.deepEqual((await runCurlLine(line)).json.items, []);
  }));

Deno.test("a token is needed over TCP, and never sent to another address than its own", () =>
  withApi("s3cret", async ({ run, write, address, socket }) => {
    const token = await write("token", "s3cret\n");
    const says = [/^error: .*no token was sent/m, /^hint: .*--token-file/m];
    assertFailed(await run("peers", "list", "--api", address), { code: 77, says });
    assert.equal((await run("peers", "list", "--api", address, "--token-file", token)).code, 0);
    assert.equal((await run("peers", "list", "--api", `unix:${socket}`)).code, 0);
    const file = await write("m.yaml", `listen: { api: { address: "${address}", token_file: token } }`);
    assert.equal((await run("peers", "list", "-c", file)).code, 0);
    assertFailed(await run("peers", "list", "-c", file, "--api", address), { code: 77, says });
  }));

Deno.test("--as-curl prints a line that does the same, without the secret", () =>
  withApi("s3cret", async ({ run, write, address, socket, control }) => {
    const token = await write("it's a token", "s3cret\n");
    const line = async (...args: string[]) => {
      const { code, stdout } = await run("--as-curl", ...args);
      assert.equal(code, 0);
      assert.doesNotMatch(stdout, /s3cret/);
      return stdout;
    };
    const tcp = ["--api", address, "--token-file", token];
    assert.equal((await runCurlLine(await line("status", ...tcp))).json.node.name, "ams");
    await runCurlLine(await line("peers", "add", "nyc", "http://nyc:7432", ...tcp));
    assert.equal(control.peers.get("nyc")?.url, "http://nyc:7432");
    const unix = ["--api", `unix:${socket}`];
    await runCurlLine(await line("peers", "pause", "nyc", ...unix));
    assert.equal(control.peers.get("nyc")?.state, "paused");
    await runCurlLine(await line("peers", "remove", "nyc", "--force", ...unix));
    assert.equal(control.peers.has("nyc"), false);
  }));
