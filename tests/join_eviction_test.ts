/** Members that were removed: their certificates are still good, and open nothing. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { MemberClient } from "../src/node/join_members.ts";
import { TlsKeys } from "../src/pki/tls_keys.ts";
import { type JoinBed, makeDatabase, startJoinBed, startJoining, streaming } from "./support/join_bed.ts";
import type { Mmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const NEVER = new AbortController().signal;

/** Asks the first member as a node that has joined, by its certificate. */
async function clientOf({ member }: JoinBed, node: Mmlite): Promise<MemberClient> {
  const place = (name: string) => join(node.stateDir, "tls", name);
  const files = { cert: place("node.pem"), key: place("node-key.pem"), ca: place("ca.pem") };
  const tls = await TlsKeys.load(files, { cluster: "mmlite", node: node.name });
  return new MemberClient({ name: "ams", urls: [member.peerUrl] }, { tls, signal: NEVER });
}

Deno.test("a removed member learns nothing more of the tables", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 16 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  await makeDatabase({ server: second, database: "nyc" });
  const token = await bed.invite();
  await using nyc = await startJoining({ server: second, database: "nyc" }, () => ["join", token]);
  await streaming(nyc, 1);
  const client = await clientOf(bed, nyc);
  const url = "https://127.0.0.1:1/and?more";
  await assert.rejects(client.register(url), {
    kind: "invalid_input",
    message: /something follows the port$/,
  });
  const tables = await client.tables();
  assert.deepEqual(tables.map(({ name }) => name), ["t", "u"]);
  assert.equal((await bed.member.cli("peers", "remove", "nyc", "--force")).code, 0);
  const refusal = {
    kind: "refused",
    message: 'Cannot tell node "nyc" of the tables: it is no peer of "ams"',
  };
  await assert.rejects(client.tables(), refusal);
  const wanted = tables.map((table) => ({ ...table, hashed: true }));
  await assert.rejects(client.digest(wanted, () => {}), refusal);
  // Its invite has not expired.
  await assert.rejects(client.register(null), { kind: "refused", message: /it was removed on "ams"$/ });
});

Deno.test("a removed member does not come back through one that joined later", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 16 });
  await using third = await startPostgres({ major: 17 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const [nycPlace, fraPlace] = [{ server: second, database: "nyc" }, { server: third, database: "fra" }];
  await Promise.all([makeDatabase(nycPlace), makeDatabase(fraPlace)]);
  const tokenForNyc = await bed.invite();
  await using nyc = await startJoining(nycPlace, () => ["join", tokenForNyc]);
  await streaming(nyc, 1);
  assert.equal((await bed.member.cli("peers", "remove", "nyc", "--force")).code, 0);
  const tokenForFra = await bed.invite();
  await using fra = await startJoining(fraPlace, () => ["join", tokenForFra]);
  await streaming(fra, 1);
  await nyc.api("PUT", "/v1/peers/fra", {
    url: fra.peerUrl.replace(/^http:/, "https:"),
  });
  await eventually("nyc to be refused", async () => {
    const { json } = await nyc.api("GET", "/v1/peers/fra");
    if (json.last_error?.message.includes('it was removed on "fra"')) return true;
    throw new Error(JSON.stringify(json));
  });
  const { json: { items } } = await fra.api("GET", "/v1/peers");
  assert.deepEqual(items.map(({ name }: { name: string }) => name), ["ams"]);
});
