/** Connections over real sockets: several channels on one, and every way to lose it (PROTOCOL 1 and 7). */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";
import {
  dial,
  drain,
  echo,
  NEVER,
  openPort,
  PEER,
  rejectsWith,
  tcpServer,
} from "../../tests/support/peer_ports.ts";
import { eventually } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import type { Channel } from "../wire/channel.ts";
import { PeerDialler } from "./peer_dialler.ts";
import { FRAME_PATHS, WINDOW_BYTES } from "./session_options.ts";

const MIB = 0x10_0000;

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
  const reader = await dial(peer.url);
  const writer = await dial(peer.url);
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
    const channel = await dial(peer.url);
    await channel.write(new Uint8Array(MIB));
    await channel.end();
    assert.equal(await drain(channel), MIB);
  }
  await peer.kill();
});

Deno.test("a hundred dials and closes leave nothing open", async () => {
  let open = 0;
  const server = await openPort(async (channel) => {
    open++;
    await echo(channel).finally(() => open--);
  });
  for (let round = 0; round < 100; round++) {
    const channel = await dial(server.url);
    await channel.write(new Uint8Array(1000));
    if (round % 2 === 0) {
      await channel.end();
      assert.equal(await drain(channel), 1000);
    } else channel.destroy();
  }
  await eventually("every accept to have settled", () => open === 0);
  await server.close();
});

Deno.test("closing the server breaks its channels and waits for their owners", async () => {
  let settled = false;
  const server = await openPort(async (channel) => {
    await drain(channel).catch(() => {});
    settled = true;
  });
  const channel = await dial(server.url);
  const reading = rejectsWith(drain(channel), "unreachable", /^Cannot read from/);
  await server.close();
  assert(settled);
  await reading;
  channel.destroy();
  await server.close();
});

/** A port whose push channels echo and whose return channels hold still until the test ends them. */
async function openTwoWayPort() {
  const returned = Promise.withResolvers<{ channel: Channel; node: string }>();
  const released = Promise.withResolvers<void>();
  const remotes: string[] = [];
  const port = await openPort(async (channel) => {
    remotes.push(channel.remote);
    await echo(channel);
  }, {
    acceptReturn: (channel, node) => {
      returned.resolve({ channel, node });
      return released.promise;
    },
  });
  const dialler = new PeerDialler({ tls: null, self: "a" });
  return {
    port,
    remotes,
    returned: returned.promise,
    dial: (path: "push" | "return", signal = NEVER) => dialler.dial(port.url, { peer: PEER, path, signal }),
    async [Symbol.asyncDispose]() {
      released.resolve();
      dialler.close();
      await port.close();
    },
  };
}

Deno.test("channels to one peer share a connection, and the end of one leaves the others alone", async () => {
  await using bed = await openTwoWayPort();
  const [push, back] = await Promise.all([bed.dial("push"), bed.dial("return")]);
  const { channel: pushing, node } = await bed.returned;
  assert.equal(node, "a");
  assert.equal(pushing.remote, bed.remotes[0]);
  push.destroy();
  const second = await bed.dial("push");
  await second.write(new Uint8Array(1000));
  await second.end();
  assert.equal(await drain(second), 1000);
  assert.equal(new Set(bed.remotes).size, 1);
  await pushing.write(new Uint8Array(MIB));
  await pushing.end();
  assert.equal(await drain(back), MIB);
});

Deno.test("a connection ends with its last channel, and the next dial makes another", async () => {
  await using bed = await openTwoWayPort();
  let open = 0;
  await using relay = await tcpServer((socket) => {
    open++;
    const onward = net.connect(bed.port.address.port, "127.0.0.1");
    socket.pipe(onward).pipe(socket).once("close", () => open--);
  });
  const dialler = new PeerDialler({ tls: null, self: "a" });
  for (let round = 1; round <= 3; round++) {
    const channel = await dialler.dial(relay.url, { peer: PEER, path: "push", signal: NEVER });
    await channel.end();
    await drain(channel);
    channel.destroy();
    await eventually("the connection to end", () => open === 0, { timeoutMs: 5000, intervalMs: 5 });
    assert.equal(new Set(bed.remotes).size, round);
  }
  dialler.close();
});

Deno.test("a channel that nobody reads stops no other on its connection", async () => {
  await using bed = await openTwoWayPort();
  const push = await bed.dial("push");
  const flood = { written: 0, over: false };
  // Echoed, and never read here: both directions of its stream fill up.
  const flooding = (async () => {
    while (!flood.over) {
      await push.write(new Uint8Array(MIB / 4));
      flood.written += MIB / 4;
    }
  })();
  flooding.catch(() => {});
  let before = -1;
  await eventually("the flooded channel to stand still", () => {
    const isStill = flood.written === before && flood.written >= WINDOW_BYTES;
    before = flood.written;
    return isStill;
  }, { intervalMs: 300 });
  const back = await bed.dial("return");
  const { channel: pushing } = await bed.returned;
  const read = drain(back);
  for (let sent = 0; sent < 3 * WINDOW_BYTES; sent += MIB) await pushing.write(new Uint8Array(MIB));
  await pushing.end();
  assert.equal(await read, 3 * WINDOW_BYTES);
  flood.over = true;
  push.destroy();
  await flooding.catch(() => {});
});

Deno.test("a channel broken off because nobody is there takes the others of its connection with it", async () => {
  await using bed = await openTwoWayPort();
  const [push, back] = await Promise.all([bed.dial("push"), bed.dial("return")]);
  const reading = rejectsWith(drain(back), "unreachable", /^Silent for 30 s$/);
  push.destroy(new MmliteError("unreachable", "Silent for 30 s"));
  await reading;
  const { channel: pushing } = await bed.returned;
  await rejectsWith(drain(pushing), "unreachable", /^Cannot read from/);
  assert.equal(
    await (async () => {
      const next = await bed.dial("push");
      await next.end();
      return await drain(next);
    })(),
    0,
  );
});

Deno.test("a dial that is given up leaves the one beside it alone", async () => {
  await using bed = await openTwoWayPort();
  const stop = new AbortController();
  const given = bed.dial("return", stop.signal);
  const kept = bed.dial("push");
  stop.abort();
  await rejectsWith(given, "aborted", /stopped$/);
  const channel = await kept;
  await channel.end();
  assert.equal(await drain(channel), 0);
});

Deno.test("a connection that is stuck is not used again", async () => {
  await using bed = await openTwoWayPort();
  let carried: net.Socket[] = [];
  await using relay = await tcpServer((socket) => {
    const onward = net.connect(bed.port.address.port, "127.0.0.1").on("error", () => {});
    socket.once("close", () => onward.destroy());
    socket.pipe(onward).pipe(socket);
    carried.push(socket, onward);
  });
  const dialler = new PeerDialler({ tls: null, self: "a" });
  const dialOnce = () => dialler.dial(relay.url, { peer: PEER, path: "push", signal: NEVER });
  const stuck = await dialOnce();
  for (const socket of carried) socket.unpipe().pause();
  carried = [];
  const writing = (async () => {
    for (;;) await stuck.write(new Uint8Array(MIB));
  })();
  writing.catch(() => {});
  stuck.destroy();
  await assert.rejects(writing);
  const next = await dialOnce();
  await next.end();
  assert.equal(await drain(next), 0);
  dialler.close();
});
