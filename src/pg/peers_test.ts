import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { ensureRemoved, readPeer, savePeer, setPeerIdentity, setPeerRemoved } from "./peers.ts";
import { queryWith } from "./query.ts";
import { ensureSchema } from "./schema.ts";

Deno.test("the first life of a peer's database that is met is the peer, until it is removed", async () => {
  await using server = await startPostgres({ major: 18 });
  const client = await server.connect("postgres");
  const query = queryWith(client);
  await ensureSchema(query);
  await savePeer(query, { name: "b", url: null });
  const life = (digit: number, timeline: number) => ({
    incarnation: `00000000-0000-4000-8000-00000000000${digit}`,
    systemIdentifier: "7",
    timeline,
  });
  await setPeerIdentity(query, "b", life(1, 1));
  await setPeerIdentity(query, "b", life(1, 2));
  await assert.rejects(setPeerIdentity(query, "b", life(2, 2)), { kind: "fenced" });
  const row = await readPeer(query, "b");
  assert.deepEqual([row!.incarnation, row!.timeline], [life(1, 2).incarnation, 2]);
  await setPeerRemoved(query, "b");
  await assert.rejects(setPeerIdentity(query, "b", life(2, 1)), { kind: "not_found" });
  await ensureRemoved(query, "b");
  await savePeer(query, { name: "b", url: null });
  await setPeerIdentity(query, "b", life(2, 1));
  await ensureRemoved(query, "b");
  assert.equal((await readPeer(query, "b"))!.intent, "active");
  await ensureRemoved(query, "d");
  assert.equal((await readPeer(query, "d"))!.intent, "removed");
  await assert.rejects(setPeerIdentity(query, "c", life(2, 1)), { kind: "not_found" });
  await client.end();
});
