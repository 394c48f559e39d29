/** Channels over real sockets: duplex, flow control, and every way to end (PROTOCOL 1 and 7). */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { dial, drain, echo, openPort, rejectsWith } from "../../tests/support/peer_ports.ts";
import { eventually } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import { encodeFrame } from "../wire/codec.ts";
import { expectFrame, readFrames } from "../wire/frame_stream.ts";
import { WINDOW_BYTES } from "./session_options.ts";

const MIB = 0x10_0000;

Deno.test("both directions flow at once, in order, to a clean end", async () => {
  const server = await openPort(echo);
  const channel = await dial(server.url);
  const sent = crypto.getRandomValues(new Uint8Array(60_000));
  const received: Uint8Array[] = [];
  const reading = (async () => {
    for await (const chunk of channel.incoming) received.push(chunk);
  })();
  for (let round = 0; round < 100; round++) await channel.write(sent);
  await channel.end();
  await reading;
  const whole = Buffer.concat(received);
  assert.equal(whole.length, 100 * sent.length);
  for (let at = 0; at < whole.length; at += sent.length) {
    assert(whole.subarray(at, at + sent.length).equals(sent));
  }
  await server.close();
});

Deno.test("a reader that does not read holds the writer back at about the window", async () => {
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const total = 200 * MIB;
  let received = 0;
  const server = await openPort(async (channel) => {
    await gate;
    received = await drain(channel);
  });
  const channel = await dial(server.url);
  let accepted = 0;
  const writing = (async () => {
    const piece = new Uint8Array(64 * 1024);
    for (; accepted < total; accepted += piece.length) await channel.write(piece);
    await channel.end();
  })();
  let before = -1;
  await eventually("the writer to stand still", async () => {
    before = accepted;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return accepted === before && accepted > 0;
  });
  assert(accepted <= WINDOW_BYTES + MIB, `${accepted} bytes were accepted unread`);
  const rssBefore = process.memoryUsage().rss;
  open();
  await writing;
  await drain(channel);
  assert.equal(received, total);
  assert(process.memoryUsage().rss - rssBefore < 100 * MIB);
  await server.close();
});

Deno.test("one long write goes through without a second copy of it", async () => {
  let received = 0;
  const server = await openPort(async (channel) => {
    received = await drain(channel);
  });
  const channel = await dial(server.url);
  const value = new Uint8Array(100 * MIB).fill(1);
  const rssBefore = process.memoryUsage().rss;
  await channel.write(value);
  assert(process.memoryUsage().rss - rssBefore < 80 * MIB);
  await channel.end();
  await drain(channel);
  assert.equal(received, value.length);
  await server.close();
});

Deno.test("writes made at the same time do not interleave", async () => {
  const chunks: Uint8Array[] = [];
  const server = await openPort(async (channel) => {
    for await (const chunk of channel.incoming) chunks.push(chunk);
  });
  const channel = await dial(server.url);
  await Promise.all([1, 2, 3].map((fill) => channel.write(new Uint8Array(MIB).fill(fill))));
  await channel.end();
  await drain(channel);
  const whole = Buffer.concat(chunks);
  const runs = [...whole].filter((byte, index) => index === 0 || whole[index - 1] !== byte);
  assert.deepEqual(runs, [1, 2, 3]);
  await server.close();
});

Deno.test("destroy breaks the other end's stream, and its own, with the reason given", async () => {
  const { promise: seen, resolve } = Promise.withResolvers<unknown>();
  const server = await openPort((channel) => drain(channel).then(resolve, resolve));
  const channel = await dial(server.url);
  await channel.write(new Uint8Array(10));
  const reading = drain(channel);
  channel.destroy(new MmliteError("transient", "Broken on purpose"));
  channel.destroy();
  await rejectsWith(reading, "transient", /Broken on purpose/);
  await rejectsWith(channel.write(new Uint8Array(1)), "transient", /Broken on purpose/);
  await rejectsWith(channel.end(), "transient", /Broken on purpose/);
  await rejectsWith(Promise.reject(await seen), "unreachable", /^Cannot read from 127\.0\.0\.1:\d+: /);
  await server.close();
});

Deno.test("an accept that throws breaks the dialler's stream", async () => {
  const server = await openPort(() => Promise.reject(new MmliteError("protocol", "No")));
  const channel = await dial(server.url);
  await rejectsWith(drain(channel), "unreachable", /^Cannot read from/);
  channel.destroy();
  await server.close();
});

Deno.test("an accept that returns ends the stream: what it wrote arrives, then a clean end", async () => {
  const server = await openPort((channel) => channel.write(new Uint8Array(3 * MIB)));
  const channel = await dial(server.url);
  assert.equal(await drain(channel), 3 * MIB);
  await channel.end();
  await server.close();
});

Deno.test("a refusal reaches a sender that never stops pushing (PROTOCOL 7)", async () => {
  const server = await openPort(async (channel) => {
    for await (const _ of channel.incoming) break;
    await channel.write(encodeFrame({ kind: "refusal", errorKind: "apply_failed", message: "No", hint: "" }));
    await channel.end();
    channel.destroy();
  });
  for (let round = 0; round < 50; round++) {
    const channel = await dial(server.url);
    const pumping = (async () => {
      while (true) {
        await channel.write(new Uint8Array(20_000));
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    })();
    const reading = expectFrame(readFrames(channel), "ack");
    await rejectsWith(Promise.race([pumping, reading]), "apply_failed", /^Peer refused: No$/);
    channel.destroy();
    await assert.rejects(pumping);
  }
  await server.close();
});
