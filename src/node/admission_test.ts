import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { PROTOCOL_VERSION } from "../wire/frame.ts";
import { parseLsn } from "../lsn.ts";
import { readPeer, savePeer } from "../pg/peers.ts";
import { admit } from "./admission.ts";
import { openDatabase } from "./database.ts";

Deno.test("a life of a database that is over does not take the place of the one that bears its name now", async () => {
  await using server = await startPostgres({ major: 18 });
  const stop = new AbortController();
  const database = await openDatabase(server.url("postgres"), stop.signal);
  const query = database.control.query("test");
  await savePeer(query, { name: "b", url: null });
  const identity = (node: string) => ({
    cluster: "mmlite",
    node,
    incarnation: "00000000-0000-4000-8000-000000000001",
    systemIdentifier: "7",
    timeline: 1,
    serverVersion: 180_000,
    program: "0.0.0",
  });
  const hello = {
    kind: "hello" as const,
    protocol: PROTOCOL_VERSION,
    identity: identity("b"),
    receiver: "a",
    url: null,
    slotLsn: parseLsn("0/100"),
    ackedLsn: parseLsn("0/200"),
    walLsn: parseLsn("0/300"),
    compression: [],
    policies: null,
  };
  const options = {
    database,
    self: identity("a"),
    register: () => Promise.resolve(),
    dials: () => false,
    proven: () => {},
    compression: "off" as const,
    observer: () => assert.fail("nothing is applied"),
    trust: () => assert.fail("nothing is applied"),
    mayGroup: () => assert.fail("nothing is applied"),
    policies: () => assert.fail("nothing is answered"),
    seenBy: () => assert.fail("nothing is applied"),
    others: () => assert.fail("nothing is applied"),
    policyOf: () => assert.fail("nothing is applied"),
    applied: { add: () => {} },
    clock: { untilPassed: () => assert.fail("nothing is applied") },
    maxClockWaitMs: 0,
    causes: {
      areMet: () => assert.fail("nothing is applied"),
      wait: () => assert.fail("nothing is applied"),
    },
    appliedLog: () => assert.fail("nothing is applied"),
    awaitTable: () => assert.fail("nothing is applied"),
    requireWhole: () => {},
    notedSecondLook: () => {},
    unsent: { of: () => assert.fail("nothing is applied"), noted: () => {} },
  };
  await assert.rejects(admit(options, hello), {
    kind: "fenced",
    message: /this database knows nothing of it/,
  });
  assert.equal((await readPeer(query, "b"))!.incarnation, null);
  stop.abort();
  await database.close();
});
