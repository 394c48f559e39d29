import assert from "node:assert/strict";
import type { Database } from "./database.ts";
import type { Peers } from "./peers.ts";
import { Verification } from "./verification.ts";

Deno.test("a comparison with a peer that there is not is wrong input, and no difference", () => {
  const verification = new Verification({
    database: {} as Database,
    self: "ams",
    peers: { find: () => undefined, list: () => [] } as unknown as Peers,
    patterns: { include: ["public.*"], exclude: [] },
    dial: () => Promise.reject(new Error("nobody is dialled")),
    signal: new AbortController().signal,
  });
  const input = { type: "verify", share: 1, limit: 1, settle_seconds: 1 } as const;
  assert.throws(() => verification.check({ ...input, peers: ["nobody"] }), {
    kind: "invalid_input",
    message: /peer "nobody": there is none/,
  });
});
