/**
 * What stops `mmlite run` at its start: each a sentence with its remedy and an exit code, no secret in it, and a
 * database that is as it was.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type CommandResult, connectAll, runMmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";
import { freePort, removeScratch, scratchBase } from "./support/scratch.ts";

const PASSWORD = "sEcret-9";
const WRONG_PASSWORD = "wrOng-7";
const CANNOT_CONNECT = /^error: Cannot connect to \S+ at \S+: /m;

interface Attempt {
  readonly postgres: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** A directory that is gone afterwards. */
async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-bad-" });
  try {
    await test(directory);
  } finally {
    await removeScratch(directory);
  }
}

/** Runs a node that has everything it needs but what the attempt says; later arguments win. */
function tryRun(directory: string, { postgres, args = [], env }: Attempt): Promise<CommandResult> {
  const usual = ["--name", "a", "--tables", "public.*", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
  const all = ["run", ...usual, "--state", join(directory, "state"), "--postgres", postgres, ...args];
  return runMmlite(all, { env: { XDG_CONFIG_HOME: directory, ...env }, cwd: directory });
}

/** Fails unless the command ended with the code, said this, and no secret. */
function assertRefused({ code, stdout, stderr }: CommandResult, expected: number, ...says: RegExp[]): void {
  assert.equal(code, expected, stderr);
  assert.equal(stdout, "");
  for (const one of [/^error: /m, /^hint: /m, ...says]) assert.match(stderr, one);
  for (const secret of [PASSWORD, WRONG_PASSWORD]) assert.doesNotMatch(stderr, new RegExp(secret));
}

/** Fails unless nothing of mmlite is in the database or on its server. */
async function assertUntouched(server: PostgresServer, database: string): Promise<void> {
  const [row] = await server.sql(
    database,
    `SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'mmlite')::int AS schemas,
      (SELECT count(*) FROM pg_publication)::int AS publications,
      (SELECT count(*) FROM pg_replication_slots)::int AS slots,
      (SELECT count(*) FROM pg_replication_origin)::int AS origins`,
  );
  assert.deepEqual(row, { schemas: 0, publications: 0, slots: 0, origins: 0 });
}

Deno.test("a database that cannot be reached is named, with 69", () =>
  inDirectory(async (directory) => {
    using deaf = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepting = (async () => {
      for await (const connection of deaf) {
        connection.close();
      }
    })();
    const login = `app:${PASSWORD}`;
    const cases: [url: string, why: RegExp][] = [
      [`postgres://${login}@127.0.0.1:${freePort()}/app`, /connection refused$/m],
      [`postgres:///app?host=${directory}&user=app&password=${PASSWORD}`, /no such socket$/m],
      [`postgres://${login}@no-such-host.invalid/app`, /host name not found$/m],
      [`postgres://${login}@127.0.0.1:${deaf.addr.port}/app`, /the connection was lost$/m],
    ];
    await Promise.all(cases.map(async ([postgres, why]) => {
      assertRefused(await tryRun(directory, { postgres }), 69, CANNOT_CONNECT, why);
    }));
    deaf.close();
    await accepting.catch(() => {});
  }));

Deno.test("a server that does not let the role in says whom and why, with 77", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 18, authMethod: "scram-sha-256" });
    await server.createDatabase("app");
    await server.sql(
      "app",
      `CREATE ROLE app LOGIN REPLICATION PASSWORD '${PASSWORD}'; CREATE ROLE plain LOGIN PASSWORD '${PASSWORD}'`,
    );
    const url = (user: string, password?: string, database = "app") =>
      server.url(database, { user, password });
    const wrong = await tryRun(directory, { postgres: url("app", WRONG_PASSWORD) });
    assertRefused(wrong, 77, CANNOT_CONNECT, /password authentication failed for user "app"$/m, /PGPASSWORD/);
    assertRefused(await tryRun(directory, { postgres: url("app") }), 77, /for user "app"$/m);
    const env = { PGPASSWORD: WRONG_PASSWORD };
    assertRefused(await tryRun(directory, { postgres: url("ghost"), env }), 77, /for user "ghost"$/m);
    const unknown = await tryRun(directory, { postgres: url("app", PASSWORD, "nope") });
    assertRefused(unknown, 78, /database "nope" does not exist$/m, /^hint: Create the database/m);
    const plain = await tryRun(directory, { postgres: url("plain", PASSWORD) });
    assertRefused(plain, 77, /role "plain" has no REPLICATION right$/m, /ALTER ROLE "plain" REPLICATION/);
    await assertUntouched(server, "app");
  }));

Deno.test("a role without superuser's rights reads which GRANTs it needs, and works once it has them", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 18 });
    for (const database of ["app", "other"]) {
      await server.createDatabase(database);
      await server.sql(database, `CREATE TABLE t (id int PRIMARY KEY)`);
    }
    await server.sql("app", "CREATE ROLE app LOGIN REPLICATION; ALTER TABLE t OWNER TO app");
    const postgres = server.url("app", { user: "app" });
    const refused = await tryRun(directory, { postgres });
    assertRefused(
      refused,
      77,
      /role "app" lacks rights/,
      /SET ON PARAMETER session_replication_role TO "app"/,
    );
    await assertUntouched(server, "app");

    const grants = /: (GRANT .*)$/m.exec(refused.stderr)![1];
    assert.equal(grants.split("; ").length, 8, grants);
    await server.sql("app", grants);
    await using a = await startMmlite({ name: "a", postgres });
    await using b = await startMmlite({ name: "b", postgres: server.url("other") });
    await connectAll([a, b]);
    await server.sql("app", "INSERT INTO t VALUES (1)");
    await server.sql("other", "INSERT INTO t VALUES (2)");
    for (const database of ["app", "other"]) {
      const look = async () => (await server.sql(database, "SELECT FROM t")).length === 2;
      await eventually(`both rows in ${database}`, look);
    }
  }));

Deno.test("PostgreSQL 14 takes a superuser and nobody else", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 14 });
    await server.createDatabase("app");
    await server.sql("app", "CREATE ROLE app LOGIN REPLICATION");
    const refused = await tryRun(directory, { postgres: server.url("app", { user: "app" }) });
    assertRefused(
      refused,
      77,
      /role "app" is not a superuser, and PostgreSQL 14/,
      /ALTER ROLE "app" SUPERUSER/,
    );
    const ghost = await tryRun(directory, { postgres: server.url("app", { user: "ghost" }) });
    assertRefused(ghost, 77, /role "ghost" does not exist$/m);
    await assertUntouched(server, "app");
  }));

Deno.test("a server that is not set up for it is told what to set, with 78", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 16, settings: { wal_level: "replica" } });
    await server.createDatabase("app");
    const refused = await tryRun(directory, { postgres: server.url("app") });
    assertRefused(refused, 78, /wal_level is replica, and logical is needed$/m, /ALTER SYSTEM SET wal_level/);
    await assertUntouched(server, "app");
    await server.stop();
    await using standby = await startStandby(server);
    const onStandby = await tryRun(directory, { postgres: standby.url("app") });
    assertRefused(onStandby, 78, /the server is a standby$/m, /Point mmlite at the primary/);
  }));

/** A copy of a stopped server that waits for WAL that never comes. */
async function startStandby(server: PostgresServer): Promise<PostgresServer> {
  await Deno.writeTextFile(join(server.dataDir, "standby.signal"), "");
  return await startPostgres({ major: server.major, cloneOf: server.dataDir });
}

Deno.test("one database is one node: a second sidecar, another name and a copy are refused", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 18 });
    await server.createDatabase("app");
    await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY)");
    const postgres = server.url("app");
    await using node = await startMmlite({ name: "a", postgres });
    const second = await tryRun(directory, { postgres, args: ["--state", node.stateDir] });
    assertRefused(
      second,
      1,
      /Cannot run beside database "app": another mmlite does/,
      /Stop the other mmlite/,
    );
    assert.equal((await node.api("GET", "/readyz")).status, 200);
    await node.stop();
    const renamed = await tryRun(directory, { postgres, args: ["--name", "b"] });
    assertRefused(renamed, 78, /Cannot run as node "b".*this database is node "a"/, /Start with --name a/);
    const moved = await tryRun(directory, { postgres });
    assertRefused(moved, 78, /state file "\S+a\.incarnation" is missing/, /If the database is a copy/);
    await node.start();
  }));

Deno.test("what stands in the way on this machine is named, with 78", () =>
  inDirectory(async (directory) => {
    await using server = await startPostgres({ major: 18 });
    await server.createDatabase("app");
    const postgres = server.url("app");
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const address = `127.0.0.1:${taken.addr.port}`;
    const file = join(directory, "file");
    await Deno.writeTextFile(file, "");
    const open = join(directory, "open");
    await Deno.writeTextFile(open, `${PASSWORD}\n`);
    await Deno.chmod(open, 0o644);
    const cases: [args: string[], ...says: RegExp[]][] = [
      [
        ["--listen", address],
        new RegExp(`Cannot listen for peers on ${address}`),
        /another port with --listen/,
      ],
      [["--api", address], new RegExp(`control API on "?${address}"?: it is in use`), /\(--api\)/],
      [["--listen", "203.0.113.9:7432", "--insecure"], /203\.0\.113\.9:7432: this host has no such address/],
      [["--state", file], /Cannot read state file "\S+": ENOTDIR/, /--state DIR/],
      [["--listen", "0.0.0.0:0"], /Cannot listen for peers on "0\.0\.0\.0:0"/, /add --insecure/],
      [["--api", "0.0.0.0:0"], /there is no token$/m, /--token-file/],
      [["--api", "0.0.0.0:0", "--token-file", join(directory, "none")], /Cannot read secret file "\S+none"/],
      [["--postgres-file", open], /Cannot use both .*--postgres-file/, /Keep one of them/],
      [["--token-file", open], /every user may read or write it$/m, /chmod o-rwx/],
      [["--name", "Ämsterdam"], /--name.*lower-case letters/],
      [["--name", "x".repeat(41)], /--name.*1 to 40/],
      [["--tables", "publ ic."], /Cannot use --tables "publ ic\.": expected SCHEMA\.TABLE/],
      [["--advertise", "fra.example:7432"], /--advertise.*expected none, or an https or http URL/],
      [["--advertise", "https://fra.example:7432"], /the peer port speaks cleartext/, /Advertise it as http/],
    ];
    await Promise.all(cases.map(async ([args, ...says]) => {
      assertRefused(await tryRun(directory, { postgres, args }), 78, ...says);
    }));
    const [{ slots }] = await server.sql("app", "SELECT count(*)::int AS slots FROM pg_replication_slots");
    assert.equal(slots, 0);
    await using node = await startMmlite({
      name: "a",
      postgres,
      extraArgs: ["--state", join(directory, "state")],
    });
    assert.equal((await node.api("GET", "/readyz")).status, 200);
  }));

Deno.test("a malformed URL never shows its password", () =>
  inDirectory(async (directory) => {
    const urls = [
      `postgres://app:${PASSWORD}@127.0.0.1:port/app`,
      `mysql://app:${PASSWORD}@127.0.0.1/app`,
      `postgres:///app?hots=/tmp&password=${PASSWORD}`,
      `postgres:///app?host=/a,/b&password=${PASSWORD}`,
      `host=/tmp password='${PASSWORD}`,
      `postgres://app:${PASSWORD}@127.0.0.1/app?sslmode=maybe`,
    ];
    await Promise.all(urls.map(async (postgres) => {
      assertRefused(await tryRun(directory, { postgres }), 78, /^error: Cannot read the PostgreSQL URL: /m);
    }));
  }));
