import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import {
  clearRepairDue,
  ensureRemoved,
  keepLastProgress,
  readAwayCounted,
  readLastApplied,
  readPeer,
  savePeer,
  setAwayCounted,
  setPeerAway,
  setPeerIdentity,
  setPeerRemoved,
  setPeerRenewed,
  setRepairDue,
} from "./peers.ts";
import { forgetProgress, startProgress } from "./progress.ts";
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

Deno.test("how long a peer was away is counted anew each time it goes", async () => {
  await using server = await startPostgres({ major: 10 });
  const client = await server.connect("postgres");
  const query = queryWith(client);
  await ensureSchema(query);
  await savePeer(query, { name: "b", url: null });
  const goes = () => setPeerAway(query, { name: "b", isAway: true });
  const since = await goes();
  await setAwayCounted(query, "b", 61.25);
  assert.equal(await goes(), since);
  assert.equal(await readAwayCounted(query, "b"), 61.25);
  assert.equal(await setPeerAway(query, { name: "b", isAway: false }), null);
  assert.notEqual(await goes(), null);
  assert.equal(await readAwayCounted(query, "b"), 0);
  await setAwayCounted(query, "b", 7);
  await setPeerRenewed(query, "b", "sent");
  await goes();
  assert.equal(await readAwayCounted(query, "b"), 0);
  await client.end();
});

Deno.test("what begins anew is forgotten and noted as due in one statement; a removed peer leaves no old position", async () => {
  await using server = await startPostgres({ major: 10 });
  const client = await server.connect("postgres");
  const query = queryWith(client);
  await ensureSchema(query);
  await savePeer(query, { name: "b", url: null });
  await startProgress(query, "b", "0/100");
  assert.notEqual((await setPeerRenewed(query, "b", "sent")).repairDue, null);
  assert.equal((await readLastApplied(query, "b")).lsn, 0x100n);
  assert.notEqual((await setPeerRenewed(query, "b", "received")).repairDue, null);
  assert.equal((await readLastApplied(query, "b")).lsn, null);

  const due = await setRepairDue(query, "b");
  assert.notEqual(await setRepairDue(query, "b"), due);
  await clearRepairDue(query, "b");
  assert.equal((await readPeer(query, "b"))!.repairDue, null);

  await startProgress(query, "b", "0/200");
  await keepLastProgress(query, "b");
  await forgetProgress(query, "b");
  await setPeerRemoved(query, "b");
  assert.equal((await readLastApplied(query, "b")).lsn, 0x200n);
  await savePeer(query, { name: "b", url: null });
  await keepLastProgress(query, "b");
  await setPeerRemoved(query, "b");
  assert.equal((await readLastApplied(query, "b")).lsn, null);
  await client.end();
});
