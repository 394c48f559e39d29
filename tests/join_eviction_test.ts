/** Members that were removed: their certificates are still good, and open nothing. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { MemberClient } from "../src/node/join_members.ts";
import { TlsKeys } from "../src/pki/tls_keys.ts";
import { type JoinBed, makeDatabase, startJoinBed, startJoining, streaming } from "./support/join_bed.ts";
import type { Mmlite } from "./support/mmlite.ts";
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
});
