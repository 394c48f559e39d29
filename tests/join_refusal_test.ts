/** Joins that must not be: whatever is wrong is said with its remedy, and nothing is left behind. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { decodeToken, encodeToken, type InviteToken } from "../src/node/invite_token.ts";
import { TestAuthority } from "./support/certificates.ts";
import {
  inviteAt,
  type JoinBed,
  type JoinPlace,
  makeDatabase,
  runJoin,
  slotsOf,
  startJoinBed,
  startJoining,
  streaming,
} from "./support/join_bed.ts";
import { type CommandResult, runMmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";
import { freePort } from "./support/scratch.ts";

/** A host that tries to join: a database with tables, and a state directory that is not there yet. */
interface Host extends JoinPlace {
  readonly state: string;
}

interface World {
  readonly bed: JoinBed;
  readonly server: PostgresServer;
  newHost(): Promise<Host>;
}

/** How a join has to fail. */
interface Failure {
  readonly code: number;
  readonly says: readonly RegExp[];
}

async function inWorld(test: (world: World) => Promise<void>): Promise<void> {
  await using first = await startPostgres({ major: 18 });
  await using server = await startPostgres({ major: 15 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  let hosts = 0;
  const newHost = async () => {
    const database = `host${++hosts}`;
    await makeDatabase({ server, database });
    return { server, database, state: join(bed.directory, database) };
  };
  await test({ bed, server, newHost });
  assert.deepEqual(await slotsOf(server), []);
}

function assertFailed({ code, stdout, stderr }: CommandResult, failure: Failure): void {
  assert.equal(code, failure.code, stderr);
  assert.equal(stdout, "");
  for (const says of failure.says) assert.match(stderr, says);
  assert.match(stderr, /^hint: ./m);
}

/** Fails unless a host, its database and the member are as if nobody had tried to join. */
async function assertUntouched({ server, database, state }: Host, { member }: JoinBed): Promise<void> {
  await assert.rejects(Deno.stat(state), Deno.errors.NotFound);
  const schemas = await server.sql(database, "SELECT FROM pg_namespace WHERE nspname = 'mmlite'");
  assert.equal(schemas.length, 0);
  const { json: { items } } = await member.api("GET", "/v1/peers");
  assert.deepEqual(items, []);
}

/** The token with parts replaced. */
function forge(token: string, parts: Partial<InviteToken>): string {
  return encodeToken({ ...decodeToken(token), ...parts });
}

async function stateOf({ member }: JoinBed, token: string): Promise<string> {
  const { json: { items } } = await member.api("GET", "/v1/invites");
  return items.find(({ id }: { id: string }) => id === decodeToken(token).id)?.state ?? "gone";
}

Deno.test("a token that is no good is refused, and nothing is left behind", async (t) => {
  await inWorld(async ({ bed, newHost }) => {
    const other = Buffer.alloc(32, 1).toString("base64url");
    const expired = await bed.invite("--ttl", "1s");
    const nowhere = `https://127.0.0.1:${freePort()}`;
    const cases: [name: string, token: () => Promise<string>, failure: Failure, args?: string[]][] = [
      ["no token", () => Promise.resolve(""), { code: 64, says: [/^error: Cannot read the token: /m] }],
      ["half a token", async () => (await bed.invite()).slice(0, 90), {
        code: 64,
        says: [/^error: Cannot read the token: a part of it is missing or changed$/m],
      }],
      ["expired", async () => {
        await eventually("it to expire", async () => await stateOf(bed, expired) === "expired");
        await bed.invite();
        return expired;
      }, {
        code: 1,
        says: [/^error: Cannot take in the node: the invite expired at 20/m, /`mmlite invite`/],
      }],
      ["expired long ago", async () => forge(await bed.invite(), { expiresAt: new Date("2020-01-02") }), {
        code: 1,
        says: [/^error: Cannot join with this token: it expired at 2020-01-02T/m],
      }],
      ["another secret", async () => forge(await bed.invite(), { secret: other }), {
        code: 1,
        says: [/^error: Cannot take in the node: its token is of no invite here$/m],
      }],
      ["withdrawn", async () => {
        const token = await bed.invite();
        const { id } = decodeToken(token);
        assert.equal((await bed.member.cli("invite", "withdraw", id)).code, 0);
        await bed.invite();
        return token;
      }, { code: 1, says: [/its token is of no invite here/, /withdrawn/] }],
      ["for another name", () => bed.invite("--name", "fra"), {
        code: 1,
        says: [/the invite is for node "fra", not for "host\d+"$/m, /--name fra/],
      }],
      ["of another cluster than the settings", () => bed.invite(), {
        code: 78,
        says: [/^error: Cannot join cluster "mmlite": node\.cluster is "shop" \(--cluster\)$/m],
      }, ["--cluster", "shop"]],
      ["of another CA", async () => forge(await bed.invite(), { authority: other }), {
        code: 77,
        says: [
          /what answers at 127\.0\.0\.1:\d+ shows another CA than the token names$/m,
          /who answers there/,
        ],
      }],
      ["of another node", async () => forge(await bed.invite(), { inviter: "nyc" }), {
        code: 77,
        says: [/its certificate is for node "ams", not for "nyc"/],
      }],
      ["inviter away", async () => forge(await bed.invite(), { urls: [nowhere] }), {
        code: 69,
        says: [/^error: Cannot reach the peer at 127\.0\.0\.1:\d+: nothing listens there/m],
      }],
      ["insecure", () => bed.invite(), { code: 78, says: [/Cannot join without TLS/] }, ["--insecure"]],
      ["the inviter's own name", () => bed.invite(), { code: 1, says: [/that is this node itself/] }, [
        "--name",
        "ams",
      ]],
    ];
    for (const [name, token, failure, args = []] of cases) {
      await t.step(name, async () => {
        const host = await newHost();
        const given = await token();
        assertFailed(await runJoin(host, [given], { state: host.state, args }), failure);
        await assertUntouched(host, bed);
        const state = await stateOf(bed, given).catch(() => "none");
        assert.notEqual(state, "used");
      });
    }
  });
});

Deno.test("a host that cannot be a member is refused before anybody is asked", async (t) => {
  await inWorld(async ({ bed, server, newHost }) => {
    const token = await bed.invite();
    await t.step("wal_level is replica", async () => {
      await using replica = await startPostgres({ major: 17, settings: { wal_level: "replica" } });
      await makeDatabase({ server: replica, database: "fra" });
      const host = { server: replica, database: "fra", state: join(bed.directory, "replica") };
      const failure = { code: 78, says: [/wal_level is replica, and logical is needed$/m, /ALTER SYSTEM/] };
      assertFailed(await runJoin(host, [token], { state: host.state }), failure);
      await assertUntouched(host, bed);
    });
    await t.step("no database", async () => {
      const host = { server, database: "nothing", state: join(bed.directory, "nothing") };
      const failure = { code: 69, says: [/database "nothing" does not exist/] };
      const result = await runJoin(host, [token], { state: host.state });
      assert.match(result.stderr, failure.says[0]);
      assert.notEqual(result.code, 0);
    });
    await t.step("a node of another cluster", async () => {
      const host = await newHost();
      await using node = await startMmlite({ name: "fra", postgres: server.url(host.database) });
      await node.stop();
      const failure = { code: 78, says: [/this database is node "fra" of cluster "mmlite"$/m] };
      assertFailed(await runJoin(host, [token], { state: host.state }), failure);
    });
    await t.step("beside a running mmlite", async () => {
      const host = await newHost();
      await using _node = await startMmlite({ name: host.database, postgres: server.url(host.database) });
      const failure = { code: 1, says: [/this database is node "host\d+" of cluster "mmlite" already$/m] };
      assertFailed(await runJoin(host, [token], { state: host.state }), failure);
    });
    await t.step("certificate files are there", async () => {
      const host = await newHost();
      await Deno.mkdir(join(host.state, "tls"), { recursive: true });
      await Deno.writeTextFile(join(host.state, "tls/node.pem"), "");
      const failure = { code: 1, says: [/this node has certificate files already/] };
      assertFailed(await runJoin(host, [token], { state: host.state }), failure);
    });
    assert.equal(await stateOf(bed, token), "open");
    assert.deepEqual((await bed.member.api("GET", "/v1/peers")).json.items, []);
  });
});

Deno.test("a node that is not the inviter cannot stand in for it, though it shows the right CA", async () => {
  await inWorld(async ({ bed, newHost }) => {
    const { certificate, key } = await (await TestAuthority.create()).issue({
      uris: ["mmlite://mmlite/ams"],
    });
    const authority = await Deno.readTextFile(join(bed.tls, "ca.pem"));
    const asked: string[] = [];
    const impostor = createSecureServer({ cert: certificate, key, minVersion: "TLSv1.3" });
    impostor.on("stream", (stream: ServerHttp2Stream, headers) => {
      asked.push(`${headers[":method"]} ${headers[":path"]}`);
      stream.respond({ ":status": 200 });
      stream.end(authority);
    });
    await new Promise<void>((listening) => impostor.listen(0, "127.0.0.1", listening));
    const { port } = impostor.address() as AddressInfo;
    const token = await bed.invite("--url", `https://127.0.0.1:${port}`);
    const host = await newHost();
    const result = await runJoin(host, [token], { state: host.state });
    impostor.close();
    assertFailed(result, { code: 77, says: [/this node's CA did not sign its certificate/] });
    assert.deepEqual(asked, ["GET /mmlite/v1/ca"]);
    await assertUntouched(host, bed);
    assert.equal(await stateOf(bed, token), "open");
  });
});

Deno.test("without the CA's key nobody is taken in, and the token is not used up", async () => {
  await inWorld(async ({ bed, newHost }) => {
    const key = join(bed.tls, "ca-key.pem");
    const token = await bed.invite();
    await Deno.rename(key, `${key}.away`);
    const failed = await bed.member.cli("invite");
    assertFailed(failed, {
      code: 78,
      says: [/^error: Cannot invite a node on "ams": it has no key of the CA, /m],
    });
    const host = await newHost();
    const result = await runJoin(host, [token], { state: host.state });
    assertFailed(result, {
      code: 78,
      says: [/Cannot sign the certificate .* on "ams": it has no key of the CA, /],
    });
    await assertUntouched(host, bed);
    await Deno.rename(`${key}.away`, key);
    assert.equal(await stateOf(bed, token), "open");
  });
  await using server = await startPostgres({ major: 18 });
  await using clear = await startMmlite({ name: "clear", postgres: server.url("postgres") });
  const failure = {
    code: 78,
    says: [/^error: Cannot invite a node: this node speaks cleartext$/m, /mmlite cert ca/],
  };
  assertFailed(await clear.cli("invite"), failure);
});

Deno.test("tables that differ are named, all is taken back, and the same command joins once they are equal", async () => {
  await using server = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 11 });
  await using bed = await startJoinBed({ server, name: "ams" });
  const fra = { server: second, database: "fra", state: join(bed.directory, "fra") };
  await makeDatabase(fra);
  await server.sql(
    "ams",
    "INSERT INTO t VALUES (1, 'x'), (2, 'y'); CREATE TABLE elsewhere AS SELECT 1 AS id",
  );
  await second.sql("fra", "INSERT INTO t VALUES (1, 'x'), (2, 'z'); INSERT INTO u VALUES (1)");
  const token = await bed.invite();
  const failed = await runJoin(fra, [token], { state: fra.state });
  assertFailed(failed, {
    code: 1,
    says: [
      /^error: Cannot join: the rows differ from those of node "ams" in /m,
      /public\.elsewhere \(here not replicated, there 1 row\)/,
      /public\.t \(here 2 rows, there 2 rows with other values\)/,
      /public\.u \(here 1 row, there 0 rows\)/,
      /^hint: .*run the same command again/m,
    ],
  });
  assert.deepEqual([await slotsOf(server), await slotsOf(second)], [[], []]);
  assert.deepEqual((await bed.member.api("GET", "/v1/peers")).json.items, []);
  for (const [place, database] of [[server, "ams"], [second, "fra"]] as const) {
    assert.deepEqual(await place.sql(database, "SELECT name FROM mmlite.peer"), []);
  }
  const run = await runMmlite([
    ...[
      "run",
      "--name",
      "fra",
      "--postgres",
      second.url("fra"),
      "--state",
      fra.state,
      "--tables",
      "public.*",
    ],
  ]);
  assertFailed(run, { code: 1, says: [/Cannot run node "fra": its join through "ams" has not ended/] });

  await server.sql("ams", "DROP TABLE elsewhere");
  await second.sql("fra", "UPDATE t SET v = 'y' WHERE id = 2; TRUNCATE u");
  await using joined = await startJoining(fra, () => ["join", token], {
    extraArgs: ["--state", fra.state, "--exclude", "public.nothing"],
  });
  assert.match(await joined.log(), /^mmlite run .* --tables 'public\.\*' --exclude public\.nothing /m);
  for (const node of [bed.member, joined]) await streaming(node, 1);
});

Deno.test("one token lets in one of two hosts that use it at once, and says so to the other", async () => {
  await using server = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server, name: "ams" });
  await using second = await startPostgres({ major: 17 });
  await using third = await startPostgres({ major: 17 });
  const [fra, nyc] = [{ server: second, database: "fra" }, { server: third, database: "nyc" }];
  await Promise.all([makeDatabase(fra), makeDatabase(nyc)]);
  const token = await bed.invite();
  const start = (place: JoinPlace) => startJoining(place, () => ["join", token], { awaitReady: false });
  await using one = await start(fra);
  await using two = await start(nyc);
  const loser = await eventually("one to be refused", () => [one, two].find(({ pid }) => pid === undefined));
  const winner = loser === one ? two : one;
  assert.equal(await loser.exit(), 1);
  assert.match(
    await loser.log(),
    new RegExp(`^error: Cannot take in the node: the invite was used by node "${winner.name}" at 20`, "m"),
  );
  await assert.rejects(Deno.stat(join(loser.stateDir, "tls")), Deno.errors.NotFound);
  await winner.ready();
  await streaming(winner, 1);
  await streaming(bed.member, 1);

  const clone = { server: loser === one ? second : third, database: winner.name };
  await makeDatabase(clone);
  const name = winner.name;
  const taken = await runJoin(clone, [await inviteAt(bed.member)], { state: join(bed.directory, "clone") });
  const failure = {
    code: 1,
    says: [/^error: Cannot take in node "(fra|nyc)": there is a member of that name$/m],
  };
  assertFailed(taken, failure);
  assert.match(taken.stderr, new RegExp(`mmlite peers remove ${name} --force`));
});
