import assert from "node:assert/strict";
import { type ErrorKind, MmliteError } from "../errors.ts";
import type { PeerRow } from "../pg/peers.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import { SENDER } from "../../tests/support/session_parts.ts";
import { requireKnown } from "./recognition.ts";

const SELF = SENDER;
const OTHER: NodeIdentity = {
  ...SELF,
  node: "ams",
  incarnation: "22222222-2222-4222-8222-222222222222",
  systemIdentifier: "7000000000000000002",
  timeline: 3,
};
const ROW: PeerRow = {
  name: "ams",
  url: null,
  intent: "active",
  slotLsn: null,
  ackedLsn: null,
  incarnation: OTHER.incarnation,
  systemIdentifier: OTHER.systemIdentifier,
  timeline: OTHER.timeline,
  dialsBack: null,
  copied: null,
  awaySince: null,
  evicted: null,
  repairDue: null,
  createdAt: 0n,
};

function recognise(other: Partial<NodeIdentity>, row: PeerRow | null = ROW): void {
  requireKnown({ ...OTHER, ...other }, { self: SELF, row: row ?? undefined, name: "ams" });
}

function refuses(other: Partial<NodeIdentity>, kind: ErrorKind, message: RegExp): void {
  assert.throws(() => recognise(other), (error) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("the node that was met before is known, and so is one that is met for the first time", () => {
  recognise({});
  recognise(
    { incarnation: "33333333-3333-4333-8333-333333333333", systemIdentifier: "7", timeline: 1 },
    null,
  );
  recognise({}, { ...ROW, incarnation: null, systemIdentifier: null, timeline: null });
});

Deno.test("a peer may be upgraded and promoted", () => {
  recognise({ timeline: 4, serverVersion: 190000, program: "0.2.0" });
});

Deno.test("another life of the peer's database is fenced", () => {
  refuses({ incarnation: "33333333-3333-4333-8333-333333333333" }, "fenced", /another life of that node/);
  refuses({ systemIdentifier: "7" }, "fenced", /another server \(system identifier 7/);
  refuses({ timeline: 2 }, "fenced", /went back from timeline 3 to 2/);
});

Deno.test("a node of another cluster, of this node's name, or of another name is fenced", () => {
  refuses({ cluster: "us" }, "fenced", /belongs to cluster "us", and this node to cluster "eu"/);
  refuses({ node: "fra" }, "fenced", /both nodes are called "fra"/);
  refuses({ node: "lon" }, "fenced", /is called "lon"/);
});

Deno.test("a copy of this node's database is fenced, and this node itself is a wrong address", () => {
  refuses({ incarnation: SELF.incarnation }, "fenced", /a copy of this node's database/);
  refuses({ incarnation: SELF.incarnation, node: "fra" }, "conflict", /that address is this node itself/);
});

Deno.test("a name that no node can have is refused before it is printed", () => {
  for (const node of ["", "UPPER", "a b", "x".repeat(41), "-a", "a\n"]) {
    assert.throws(
      () => recognise({ node }),
      (error) =>
        error instanceof MmliteError && error.kind === "protocol" &&
        (node === "" || !error.message.includes(`"${node}"`)),
      JSON.stringify(node),
    );
  }
});
