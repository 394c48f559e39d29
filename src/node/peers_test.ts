import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { MmliteError } from "../errors.ts";
import type { SessionPorts } from "../link/ports.ts";
import { openDatabase } from "./database.ts";
import { PeerSlots } from "./peer_slots.ts";
import { Peers } from "./peers.ts";

/** A registry on a database of its own; no peer is ever reached. */
async function startBed() {
  await using started = new AsyncDisposableStack();
  const server = started.use(await startPostgres({ major: 18 }));
  const stop = new AbortController();
  const database = await openDatabase(server.url("postgres"), stop.signal);
  started.defer(() => database.close());
  const unreachable = () => Promise.reject(new MmliteError("unreachable", "nobody is there"));
  const bed = {
    peers: undefined as unknown as Peers,
    dropInbound: (): Promise<void> => Promise.resolve(),
    server,
    [Symbol.asyncDispose]: (): Promise<void> => Promise.resolve(),
  };
  bed.peers = new Peers({
    ...{ database, self: "ams", ownUrls: [], security: { tls: false, insecure: true } },
    slots: new PeerSlots(database),
    ports: () =>
      ({ prepare: unreachable, connect: unreachable }) as unknown as Omit<
        SessionPorts,
        "asksAgain" | "callsBack"
      >,
    returnPorts: () => ({ dial: unreachable, receive: unreachable, failed: () => {} }),
    observer: () => ({ sent: () => {}, wrote: () => {}, reconnected: () => {} }),
    dropInbound: () => bed.dropInbound(),
    dropReturns: () => {},
    removed: () => {},
  });
  started.defer(() => {
    stop.abort();
    return bed.peers.close();
  });
  const owned = started.move();
  bed[Symbol.asyncDispose] = () => owned.disposeAsync();
  return bed;
}

Deno.test("changes that fail leave a peer as it was, and what is given up is not taken for delivered", async (t) => {
  await using bed = await startBed();
  const { peers, server } = bed;
  const slots = () => server.sql("postgres", "SELECT FROM pg_replication_slots");
  const { peer } = await peers.put("fra", "http://127.0.0.1:1");

  await t.step("a renewal that fails", async () => {
    bed.dropInbound = () => Promise.reject(new MmliteError("transient", "not now"));
    await assert.rejects(peers.renew("fra", "both"), /not now/);
    assert.notEqual(peer.link.state.name, "paused");
    assert.equal(peers.get("fra"), peer);
    bed.dropInbound = () => Promise.resolve();
  });

  await t.step("a comparison that began before something else was not delivered", async () => {
    await peers.repairIsDue("fra");
    const begun = peer.repairDue;
    await peers.repairIsDue("fra");
    await peers.repaired("fra", begun);
    assert.notEqual(peer.repairDue, null);
    await peers.repaired("fra", peer.repairDue);
    assert.equal(peer.repairDue, null);
  });

  await t.step("a peer that is not to be given up any more", async () => {
    await peers.evict("fra", () => Promise.resolve(undefined));
    assert.equal(peer.evicted, null);
    assert.equal((await slots()).length, 1);
  });

  await t.step("a peer that is given up while it is removed", async () => {
    await server.sql("postgres", "SELECT pg_logical_emit_message(true, 'x', 'x')");
    const removal = peers.remove("fra");
    await eventually("the removal to begin", () => peer.removing);
    await peers.evict("fra", () => Promise.resolve("too much"));
    assert.equal((await slots()).length, 0);
    assert.equal(await removal, "draining");
    assert.equal(peers.get("fra"), peer);
    await assert.rejects(peers.remove("fra"), { kind: "conflict", message: /its slot was given up/ });
  });

  await t.step("a removal by force that fails", async () => {
    const beforeSlotGoes = () => Promise.reject(new MmliteError("transient", "not now"));
    await assert.rejects(peers.force("fra", { beforeSlotGoes }), /not now/);
    assert.notEqual(peer.link.state.name, "paused");
    await peers.force("fra", { beforeSlotGoes: () => Promise.resolve() });
    assert.equal(peers.find("fra"), undefined);
  });
});
