import assert from "node:assert/strict";
import { withApi } from "../../tests/support/test_api.ts";
import { within } from "../../tests/support/poll.ts";
import type { NodeEvent } from "./control.ts";
import { eventFrames } from "./event_routes.ts";

const PEER: NodeEvent = {
  name: "peer",
  id: null,
  data: { name: "fra", state: "streaming", since: "2026-11-22T10:00:00.000Z", inbound: "streaming" },
};
const CONFLICT: NodeEvent = {
  name: "conflict",
  id: "6",
  data: {
    id: "7",
    type: "update_missing",
    resolution: "skipped",
    table: "public.users",
    noted_at: "2026-11-22T10:00:00.000001Z",
  },
};

Deno.test("what happens is sent as server-sent events, and the position of who listened before is handed on", async () => {
  await withApi(async (call, control) => {
    control.happened.push(PEER, CONFLICT);
    const answer = await call("GET", "/v1/events");
    assert.equal(answer.headers["content-type"], "text/event-stream");
    assert.equal(
      answer.text,
      `: mmlite\n\nevent: peer\ndata: ${JSON.stringify(PEER.data)}\n\n` +
        `event: conflict\nid: 6\ndata: ${JSON.stringify(CONFLICT.data)}\n\n`,
    );
    let asked: string | null | undefined;
    control.events = async function* ({ after }) {
      asked = after;
      yield* await Promise.resolve([]);
    };
    await call("GET", "/v1/events", { headers: { "last-event-id": "6" } });
    assert.equal(asked, "6");
    assert.equal((await call("GET", "/v1/events", { headers: { "last-event-id": "x" } })).status, 422);
    assert.equal((await call("HEAD", "/v1/events")).status, 200);
  });
});

Deno.test("a silent stream has comments, and ends when its source does or its reader leaves", async () => {
  let ended = 0;
  const end = Promise.withResolvers<void>();
  async function* silent(): AsyncGenerator<NodeEvent> {
    try {
      await end.promise;
      yield PEER;
    } finally {
      ended++;
    }
  }
  const frames = eventFrames(silent(), 5);
  assert.equal((await frames.next()).value, ": mmlite\n\n");
  assert.equal((await frames.next()).value, ": keepalive\n\n");
  assert.equal((await frames.next()).value, ": keepalive\n\n");
  end.resolve();
  for (let text = ": keepalive\n\n"; text === ": keepalive\n\n";) {
    const { value, done } = await frames.next();
    assert.ok(!done);
    text = value;
    if (text !== ": keepalive\n\n") assert.match(text, /^event: peer\n/);
  }
  assert.equal((await frames.next()).done, true);
  assert.equal(ended, 1);
});

Deno.test("a client that goes away ends what it listened to", async () => {
  const left = Promise.withResolvers<void>();
  await withApi(async (_, control) => {
    control.events = async function* ({ signal }) {
      yield PEER;
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      left.resolve();
    };
    const { createApi } = await import("./app.ts");
    const { serveApi } = await import("./server.ts");
    const address = { host: "127.0.0.1", port: 0 };
    const server = await serveApi({ api: createApi({ control, version: "1", address }), address });
    const client = new AbortController();
    const response = await fetch(`http://127.0.0.1:${server.address!.port}/v1/events`, {
      signal: client.signal,
    });
    const reader = response.body!.getReader();
    await reader.read();
    client.abort();
    await reader.closed.catch(() => {});
    await within("the node to hear of it", 5_000, left.promise);
    await server.close();
  });
});
