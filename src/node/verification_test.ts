import assert from "node:assert/strict";
import { httpPair } from "../../tests/support/channel_pair.ts";
import { RemoteSide } from "../verify/remote_side.ts";
import type { Database } from "./database.ts";
import type { Peers } from "./peers.ts";
import type { RowWriters } from "./row_writers.ts";
import { Verification } from "./verification.ts";

Deno.test("a comparison with a peer that there is not is wrong input, and no difference", () => {
  const verification = new Verification({
    database: {} as Database,
    self: "ams",
    peers: { find: () => undefined, list: () => [] } as unknown as Peers,
    patterns: { include: ["public.*"], exclude: [] },
    dial: () => Promise.reject(new Error("nobody is dialled")),
    writers: {} as RowWriters,
    signal: new AbortController().signal,
  });
  const input = { type: "verify", share: 1, limit: 1, settle_seconds: 1 } as const;
  assert.throws(() => verification.check({ ...input, peers: ["nobody"] }), {
    kind: "invalid_input",
    message: /peer "nobody": there is none/,
  });
  assert.throws(() => verification.check(input), {
    kind: "invalid_input",
    message: /this node has no peers/,
  });
});

Deno.test("a node that is no peer is told so when it asks about tables", async () => {
  await using pair = await httpPair();
  const verification = new Verification({
    // No such peer.
    database: { control: { query: () => () => Promise.resolve([]) } } as unknown as Database,
    self: "ams",
    peers: {} as Peers,
    patterns: { include: ["public.*"], exclude: [] },
    dial: () => Promise.reject(new Error("nobody is dialled")),
    writers: {} as RowWriters,
    signal: new AbortController().signal,
  });
  const answered = verification.acceptQuestions(pair.accepting, "fra");
  const side = new RemoteSide("ams", pair.dialling);
  await assert.rejects(side.tables(), {
    kind: "refused",
    message: 'Cannot tell node "fra" about the tables: it is no peer here (on "ams")',
    hint: 'Add node "fra" as a peer on node "ams"',
  });
  await side.close();
  await answered;
});
