/** Channels over real sockets: duplex, flow control, every way to break, and wrong numbers (PROTOCOL 1, 2, 7). */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import process from "node:process";
import { type ErrorKind, MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import type { Channel } from "../wire/channel.ts";
import { encodeFrame } from "../wire/codec.ts";
import { expectFrame, readFrames } from "../wire/frame_stream.ts";
import { PeerDialler } from "./peer_dialler.ts";
import { listenForPeers, type PeerServer } from "./peer_server.ts";
import { parsePeerUrl } from "./peer_url.ts";
import { FRAME_PATHS, type FrameRoute, WINDOW_BYTES } from "./session_options.ts";

const MIB = 0x10_0000;
const never = new AbortController().signal;

function listen(accept: (channel: Channel) => Promise<void>): Promise<PeerServer> {
  return listenForPeers({ address: { host: "127.0.0.1", port: 0 }, ...routes(accept), signal: never });
}

function routes(accept: (channel: Channel) => Promise<void>) {
  return { tls: null, accept, acceptReturn: accept, join: null };
}

function dial(server: PeerServer): Promise<Channel> {
  return dialPeer(new URL(`http://127.0.0.1:${server.address.port}`), { signal: never });
}

/** Dials on a connection of its own. */
function dialPeer(
  url: URL,
  options: { signal: AbortSignal; connectTimeoutMs?: number; path?: FrameRoute },
): Promise<Channel> {
  const dialler = new PeerDialler({ tls: null, self: "a" });
  return dialler.dial(url, { peer: { cluster: "mmlite", node: "b" }, path: "push", ...options });
}

async function echo(channel: Channel): Promise<void> {
  for await (const chunk of channel.incoming) await channel.write(chunk);
}

async function drain(channel: Channel): Promise<number> {
  let total = 0;
  for await (const chunk of channel.incoming) total += chunk.length;
  return total;
}

function rejectsWith(promise: Promise<unknown>, kind: ErrorKind, message: RegExp): Promise<void> {
  return assert.rejects(promise, (error: unknown) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  });
}

/** Waits until `holds`, looking every few milliseconds. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!await holds()) {
    assert(Date.now() < deadline, `not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A TCP server that treats each connection with `handle`; closed and all its sockets with it at the end. */
async function tcpServer(handle: (socket: net.Socket) => void) {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    handle(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

Deno.test("both directions flow at once, in order, to a clean end", async () => {
  const server = await listen(echo);
  const channel = await dial(server);
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
  const server = await listen(async (channel) => {
    await gate;
    received = await drain(channel);
  });
  const channel = await dial(server);
  let accepted = 0;
  const writing = (async () => {
    const piece = new Uint8Array(64 * 1024);
    for (; accepted < total; accepted += piece.length) await channel.write(piece);
    await channel.end();
  })();
  let before = -1;
  await until("the writer stands still", async () => {
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
  const server = await listen(async (channel) => {
    received = await drain(channel);
  });
  const channel = await dial(server);
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
  const server = await listen(async (channel) => {
    for await (const chunk of channel.incoming) chunks.push(chunk);
  });
  const channel = await dial(server);
  await Promise.all([1, 2, 3].map((fill) => channel.write(new Uint8Array(MIB).fill(fill))));
  await channel.end();
  await drain(channel);
  const whole = Buffer.concat(chunks);
  const runs = [...whole].filter((byte, index) => index === 0 || whole[index - 1] !== byte);
  assert.deepEqual(runs, [1, 2, 3]);
  await server.close();
});

Deno.test("an expected frame is waited for past heartbeats, and a refusal instead is its error (PROTOCOL 2)", async () => {
  const server = await listen(async (channel) => {
    const frames = readFrames(channel);
    await expectFrame(frames, "ack");
    await channel.write(
      encodeFrame({ kind: "refusal", errorKind: "fenced", message: "Not you", hint: "Ask" }),
    );
  });
  const channel = await dial(server);
  await channel.write(encodeFrame({ kind: "heartbeat", sentAt: 1n }));
  await channel.write(encodeFrame({ kind: "ack", endLsn: toLsn(1n) }));
  const welcome = expectFrame(readFrames(channel), "welcome");
  await rejectsWith(welcome, "fenced", /^Peer refused: Not you$/);
  channel.destroy();
  await server.close();
});

Deno.test("an expected frame that does not come is unreachable in time, or aborted by the signal", async () => {
  const server = await listen(async (channel) => void await drain(channel));
  const channel = await dial(server);
  const frames = readFrames(channel);
  await rejectsWith(
    expectFrame(frames, "welcome", { timeoutMs: 50 }),
    "unreachable",
    /no welcome within 50 ms/,
  );
  const stopped = expectFrame(frames, "welcome", { signal: AbortSignal.abort() });
  await rejectsWith(stopped, "aborted", /^Cannot shake hands: stopped while waiting for a welcome$/);
  await channel.end();
  await rejectsWith(expectFrame(frames, "welcome"), "protocol", /the stream ended before a welcome/);
  await server.close();
});

Deno.test("destroy breaks the other end's stream, and its own, with the reason given", async () => {
  const { promise: seen, resolve } = Promise.withResolvers<unknown>();
  const server = await listen((channel) => drain(channel).then(resolve, resolve));
  const channel = await dial(server);
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
  const server = await listen(() => Promise.reject(new MmliteError("protocol", "No")));
  const channel = await dial(server);
  await rejectsWith(drain(channel), "unreachable", /^Cannot read from/);
  channel.destroy();
  await server.close();
});

Deno.test("an accept that returns ends the stream: what it wrote arrives, then a clean end", async () => {
  const server = await listen((channel) => channel.write(new Uint8Array(3 * MIB)));
  const channel = await dial(server);
  assert.equal(await drain(channel), 3 * MIB);
  await channel.end();
  await server.close();
});

Deno.test("a refusal reaches a sender that never stops pushing (PROTOCOL 7)", async () => {
  const server = await listen(async (channel) => {
    for await (const _ of channel.incoming) break;
    await channel.write(encodeFrame({ kind: "refusal", errorKind: "apply_failed", message: "No", hint: "" }));
    await channel.end();
    channel.destroy();
  });
  for (let round = 0; round < 50; round++) {
    const channel = await dial(server);
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

/** Runs `tests/support/channel_peer.ts`; freed memory is overwritten, so that using it crashes every time. */
async function startPeer() {
  const script = new URL("../../tests/support/channel_peer.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--no-check", script],
    env: { MALLOC_PERTURB_: "165" },
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const port = Number(new TextDecoder().decode(value));
  return {
    url: new URL(`http://127.0.0.1:${port}`),
    port,
    async kill() {
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
    },
  };
}

Deno.test("a peer that is killed breaks the stream, whether we read or write", async () => {
  const peer = await startPeer();
  const reader = await dialPeer(peer.url, { signal: never });
  const writer = await dialPeer(peer.url, { signal: never });
  const reading = drain(reader);
  const writing = (async () => {
    while (true) await writer.write(new Uint8Array(MIB));
  })();
  await reader.write(new Uint8Array(10));
  const both = [
    rejectsWith(reading, "unreachable", /^Cannot read from/),
    rejectsWith(writing, "unreachable", /^Cannot write to/),
  ];
  await peer.kill();
  await Promise.all(both);
  reader.destroy();
  writer.destroy();
});

/** A connection preface with empty settings, a POST to the push route if wanted, and a GOAWAY. */
function goAway(code: number, withStream: boolean): Buffer {
  const frame = (type: number, flags: number, stream: number, payload: Buffer) =>
    Buffer.concat([Buffer.from([0, 0, payload.length, type, flags, 0, 0, 0, stream]), payload]);
  // HPACK (RFC 7541): POST and http from the static table, the path and an authority as literals.
  const headers = Buffer.from(
    `\x83\x86\x04${String.fromCharCode(FRAME_PATHS.push.length)}${FRAME_PATHS.push}\x01\x01a`,
    "latin1",
  );
  return Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    frame(4, 0, 0, Buffer.alloc(0)),
    withStream ? frame(1, 4, 1, headers) : Buffer.alloc(0),
    frame(7, 0, 0, Buffer.from([0, 0, 0, 0, 0, 0, 0, code])),
  ]);
}

Deno.test("a GOAWAY from anybody leaves the process alive", async () => {
  const peer = await startPeer();
  for (const code of [0, 1, 2, 11]) {
    for (const withStream of [false, true]) {
      const socket = net.connect(peer.port, "127.0.0.1");
      socket.write(goAway(code, withStream));
      await once(socket, "data");
      socket.destroy();
    }
  }
  for (let round = 0; round < 5; round++) {
    const channel = await dialPeer(peer.url, { signal: never });
    await channel.write(new Uint8Array(MIB));
    await channel.end();
    assert.equal(await drain(channel), MIB);
  }
  await peer.kill();
});

Deno.test("a hundred dials and closes leave nothing open", async () => {
  let open = 0;
  const server = await listen(async (channel) => {
    open++;
    await echo(channel).finally(() => open--);
  });
  for (let round = 0; round < 100; round++) {
    const channel = await dial(server);
    await channel.write(new Uint8Array(1000));
    if (round % 2 === 0) {
      await channel.end();
      assert.equal(await drain(channel), 1000);
    } else channel.destroy();
  }
  await until("every accept has settled", () => open === 0);
  await server.close();
});

Deno.test("closing the server breaks its channels and waits for their owners", async () => {
  let settled = false;
  const server = await listen(async (channel) => {
    await drain(channel).catch(() => {});
    settled = true;
  });
  const channel = await dial(server);
  const reading = rejectsWith(drain(channel), "unreachable", /^Cannot read from/);
  await server.close();
  assert(settled);
  await reading;
  channel.destroy();
  await server.close();
});

Deno.test("dialling says why a peer cannot be reached", async (t) => {
  const dialUrl = (url: URL, connectTimeoutMs = 5000) => dialPeer(url, { signal: never, connectTimeoutMs });
  await t.step("nothing listens", async () => {
    const { url } = await (async () => {
      await using server = await tcpServer(() => {});
      return server;
    })();
    await rejectsWith(
      dialUrl(url),
      "unreachable",
      /^Cannot reach the peer at 127\.0\.0\.1:\d+: .*ECONNREFUSED/,
    );
  });
  await t.step("the name is unknown", async () => {
    await rejectsWith(dialUrl(new URL("http://no-such-host.invalid:7432")), "unreachable", /ENOTFOUND/);
  });
  await t.step("garbage answers", async () => {
    await using server = await tcpServer((socket) => socket.end(Buffer.alloc(1000, "garbage")));
    await rejectsWith(dialUrl(server.url), "unreachable", /127\.0\.0\.1:\d+: /);
  });
  await t.step("an HTTP/1 server answers", async () => {
    const server = http.createServer((_, response) => response.end("hello"));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    await rejectsWith(dialUrl(url), "unreachable", /127\.0\.0\.1:\d+: /);
    await new Promise((resolve) => server.close(resolve));
  });
  await t.step("nobody answers", async () => {
    await using server = await tcpServer(() => {});
    await rejectsWith(dialUrl(server.url, 100), "unreachable", /no answer within 100 ms/);
  });
  await t.step("the dialler stops", async () => {
    await using server = await tcpServer(() => {});
    const stop = new AbortController();
    const dialling = dialPeer(server.url, { signal: stop.signal });
    stop.abort();
    await rejectsWith(dialling, "aborted", /^Cannot reach the peer at 127.*: stopped$/);
  });
  await t.step("the path is not there", async () => {
    const server = http2.createServer();
    server.on("stream", (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ":status": 404 });
      stream.end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    await rejectsWith(dialUrl(url), "unreachable", /it answered status 404/);
    await new Promise((resolve) => server.close(resolve));
  });
});

Deno.test("a peer's URL is a scheme, a host and a port", async () => {
  assert.equal(parsePeerUrl("http://fra.example:7432").port, "7432");
  for (
    const text of [
      "fra:7432",
      "ftp://fra:1",
      "http://",
      "http://fra:1/x",
      "http://u:p@fra:1",
      "http://fra:99999",
    ]
  ) {
    const parsing = (async () => await parsePeerUrl(text))();
    await rejectsWith(parsing, "invalid_input", /^Cannot use ".*" as a peer's URL: /);
  }
});

Deno.test("a port in use is a configuration error that names it", async () => {
  const server = await listen(echo);
  const second = listenForPeers({ address: server.address, ...routes(echo), signal: never });
  await rejectsWith(
    second,
    "config",
    new RegExp(`on 127.0.0.1:${server.address.port}: another process listens`),
  );
  await server.close();
});

Deno.test("whoever speaks HTTP/1 reads a sentence", async () => {
  const server = await listen(echo);
  const socket = net.connect(server.address.port, "127.0.0.1");
  // Byte by byte, as nothing promises more.
  socket.setNoDelay(true);
  for (const byte of "GET / HTTP/1.1\r\nhost: x\r\n\r\n") socket.write(byte);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "close");
  assert.match(String(Buffer.concat(chunks)), /^HTTP\/1\.1 400 [^]*This is mmlite's peer port/);
  await server.close();
});

Deno.test("another method is answered 405", async () => {
  const server = await listen(echo);
  const session = http2.connect(`http://127.0.0.1:${server.address.port}`);
  const stream = session.request({ ":method": "GET", ":path": FRAME_PATHS.push });
  const [headers] = await once(stream, "response");
  assert.equal(headers[":status"], 405);
  assert.equal(headers.allow, "POST");
  stream.resume();
  await once(stream, "close");
  await new Promise<void>((resolve) => session.close(resolve));
  await server.close();
});

Deno.test("a signal that aborts closes the server", async () => {
  const stop = new AbortController();
  const server = await listenForPeers({
    address: { host: "127.0.0.1", port: 0 },
    ...routes(echo),
    signal: stop.signal,
  });
  stop.abort();
  await until("the port is closed", () =>
    dial(server).then((channel) => {
      channel.destroy();
      return false;
    }, () => true));
  await server.close();
});
