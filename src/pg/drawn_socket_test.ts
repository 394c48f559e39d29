import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { eventually } from "../../tests/support/poll.ts";
import { makeDrawnSocket } from "./drawn_socket.ts";

/** A drawn socket that is connected, and the other end of it. */
async function connected() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection");
  const drawn = makeDrawnSocket();
  drawn.socket.connect((server.address() as AddressInfo).port, "127.0.0.1");
  await once(drawn.socket, "connect");
  const [other] = await accepted as [Socket];
  return {
    ...{ drawn, other },
    async [Symbol.asyncDispose]() {
      const closed = once(drawn.socket, "close");
      other.destroy();
      if (!drawn.socket.closed) await Promise.race([closed, drawn.socket.destroy()]);
      server.close();
    },
  };
}

Deno.test("what comes before a takeover is data, and after it goes into the rooms that are offered", async () => {
  await using pair = await connected();
  const { drawn, other } = pair;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  let first = "";
  drawn.socket.on("data", (bytes: Uint8Array) => first += text(bytes));
  other.write("before");
  await eventually("data", () => Promise.resolve(first === "before"));
  let [pushed, taken, full] = ["", "", 0];
  const memory = new Uint8Array(8);
  drawn.drawInto({
    room: () => memory,
    push: (bytes) => pushed += text(bytes),
    took: (length, isFull) => {
      taken += text(memory.subarray(0, length));
      if (isFull) full++;
    },
  });
  // The room that the socket has already is not one of ours.
  other.write("first");
  await eventually("the first read", () => Promise.resolve(pushed === "first"));
  other.write("0123456789abcdef01");
  await eventually("the rest", () => Promise.resolve(taken === "0123456789abcdef01"));
  assert.deepEqual([first, pushed, full], ["before", "first", 2]);
});

Deno.test("a drawn socket that is paused reads nothing, and goes on; its end is told", async () => {
  await using pair = await connected();
  const { drawn, other } = pair;
  let taken = 0;
  const memory = new Uint8Array(1024);
  const took = (length: number) => {
    taken += length;
    // As a reader does that has enough.
    drawn.socket.pause();
  };
  drawn.socket.resume();
  drawn.drawInto({ room: () => memory, push: ({ length }) => took(length), took });
  other.end(new Uint8Array(100_000));
  await eventually("the first read", () => Promise.resolve(taken > 0));
  const closed = once(drawn.socket, "close");
  const before = taken;
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(taken, before);
  await eventually("all to come", () => {
    drawn.socket.resume();
    return Promise.resolve(taken === 100_000);
  }, { intervalMs: 1 });
  drawn.socket.resume();
  await closed;
});
