/**
 * What members send to the peer port that they should not: another node's name, and floods of all that HTTP/2 has.
 * No row comes of it, the node stays up in bounded memory, and serves the others meanwhile.
 */
import "reflect-metadata";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type tls from "node:tls";
import { MAX_STRANGERS } from "../src/http/door.ts";
import { CONTENT_TYPE, FRAME_PATHS, NODE_HEADER } from "../src/http/session_options.ts";
import {
  assertServes,
  type Attack,
  attackAll,
  CLUSTER,
  helloOf,
  type HostileBed,
  MEMBER,
  openHostileBed,
  pushOf,
  shown,
} from "./support/hostile_bed.ts";
import { eventually } from "./support/poll.ts";
import {
  connectRaw,
  dataFrames,
  END_HEADERS,
  opening,
  type RawConnection,
  rawFrame,
  request,
  TYPE,
} from "./support/raw_http2.ts";

/** How much more memory than before a node may hold after a flood, bytes: what V8 has not collected yet. */
const MEMORY_BOUND = 150e6;

async function memberKeys({ authority }: HostileBed): Promise<tls.ConnectionOptions> {
  return shown(await authority.issueNode(MEMBER, { cluster: CLUSTER }));
}

async function memoryOf({ node }: HostileBed): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${node.pid}/status`);
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}

Deno.test("a member under another name, or on another road, gets a sentence or a status", async (t) => {
  await using bed = await openHostileBed();
  const tls = await memberKeys(bed);
  const returning = (headers: Record<string, string>) =>
    Buffer.concat([
      opening(),
      request(1, { path: FRAME_PATHS.return, headers: { "content-type": CONTENT_TYPE, ...headers } }),
    ]);
  const attacks: Omit<Attack, "tls">[] = [
    {
      name: "another node's name in the Hello",
      bytes: pushOf(666, helloOf({ node: "b" })),
      outcome: /^refusal untrusted: .* node "b" .* its certificate is for node "fra"/,
    },
    {
      name: "another cluster's name in the Hello",
      bytes: pushOf(666, helloOf({ cluster: "other" })),
      outcome: /^refusal untrusted: .* of cluster "other", and its certificate/,
    },
    {
      name: "a return stream for another node",
      bytes: returning({ [NODE_HEADER]: "b" }),
      outcome: /^The certificate is for another node than the header mmlite-node names/,
    },
    {
      name: "a return stream for nobody",
      bytes: returning({}),
      outcome: /^The header mmlite-node must name a node/,
    },
    {
      name: "another path",
      bytes: Buffer.concat([opening(), request(1, { path: "/v1/status", method: "GET" })]),
      outcome: /^No such path/,
    },
    {
      name: "another method",
      bytes: Buffer.concat([opening(), request(1, { path: FRAME_PATHS.push, method: "GET" })]),
      outcome: /^Only POST is taken here/,
    },
    {
      name: "garbage instead of frames",
      bytes: Buffer.concat([
        opening(),
        request(1, { path: FRAME_PATHS.push }),
        dataFrames(1, Buffer.alloc(1000, 0x7f)),
      ]),
      outcome: /^refusal protocol: Cannot/,
    },
    {
      name: "garbage instead of HTTP/2",
      bytes: Buffer.alloc(1000, "garbage "),
      outcome: /^GOAWAY [12]$|^closed$/,
    },
    {
      name: "a preface, then silence",
      bytes: opening(),
      outcome: /^GOAWAY|^closed$/,
      withinMs: 12_000,
    },
  ];
  await attackAll(t, bed, attacks.map((one) => ({ ...one, tls, isMember: true })));
  await assertServes(bed);
});

/** Writes pieces until all are gone or the node has had enough; reads nothing unless it must. */
async function flood({ socket, ended }: RawConnection, pieces: Iterable<Uint8Array>): Promise<void> {
  for (const piece of pieces) {
    if (ended() !== undefined) return;
    if (!socket.write(piece)) {
      await eventually("room", () => !socket.writableNeedDrain || ended() !== undefined);
    }
  }
}

function* repeat(times: number, piece: (round: number) => Uint8Array): Generator<Uint8Array> {
  for (let round = 0; round < times; round++) yield piece(round);
}

const PUSH = { path: FRAME_PATHS.push, headers: { "content-type": CONTENT_TYPE } };

/** Each flood, and what it is made of. */
const FLOODS: [name: string, pieces: () => Iterable<Uint8Array>][] = [
  ["10,000 streams", () => repeat(10_000, (round) => request(2 * round + 1, PUSH))],
  [
    "20,000 streams, each reset at once",
    () =>
      repeat(20_000, (round) => {
        const stream = 2 * round + 1;
        return Buffer.concat([
          request(stream, PUSH),
          rawFrame(TYPE.reset, 0, stream, Buffer.from([0, 0, 0, 8])),
        ]);
      }),
  ],
  [
    "200,000 pings",
    () => repeat(1000, () => Buffer.concat(Array(200).fill(rawFrame(TYPE.ping, 0, 0, Buffer.alloc(8))))),
  ],
  [
    "200,000 settings",
    () => repeat(1000, () => Buffer.concat(Array(200).fill(rawFrame(TYPE.settings, 0, 0)))),
  ],
  [
    "32 MB of headers without an end",
    function* () {
      yield rawFrame(TYPE.headers, 0, 1, Buffer.from([0x83, 0x87]));
      // A literal header whose value is 16,256 bytes long.
      const literal = Buffer.concat([
        Buffer.from([0x00, 0x01, 0x61, 0x7f, 0x81, 0x7e]),
        Buffer.alloc(16_256, "x"),
      ]);
      yield* repeat(2000, () => rawFrame(TYPE.continuation, 0, 1, literal.subarray(0, 16_384)));
    },
  ],
  [
    "100,000 small headers",
    function* () {
      const pair = Buffer.from([0x00, 0x01, 0x61, 0x01, 0x62]);
      yield rawFrame(TYPE.headers, 0, 1, Buffer.from([0x83, 0x87]));
      yield* repeat(100, () => rawFrame(TYPE.continuation, 0, 1, Buffer.concat(Array(1000).fill(pair))));
      yield rawFrame(TYPE.continuation, END_HEADERS, 1);
    },
  ],
  [
    "64 MB beyond every window",
    function* () {
      yield request(1, PUSH);
      yield* repeat(4000, () => rawFrame(TYPE.data, 0, 1, Buffer.alloc(16_384)));
    },
  ],
];

Deno.test("a member that floods the port loses its connection, and nobody else notices", async (t) => {
  await using bed = await openHostileBed();
  const before = await memoryOf(bed);
  for (const [name, pieces] of FLOODS) {
    await t.step(name, async () => {
      const connection = await connectRaw(bed.port, await memberKeys(bed));
      await flood(connection, [opening(), ...pieces()]);
      await assertServes(bed);
      await eventually("the connection to end", () => connection.ended(), { timeoutMs: 15_000 });
      assert(await memoryOf(bed) - before < MEMORY_BOUND);
    });
  }
});

Deno.test("strangers that hold every place open do not keep a member out", async () => {
  await using bed = await openHostileBed();
  const strangers = await Promise.all(Array.from({ length: 400 }, () => connectRaw(bed.port)));
  await assertServes(bed);
  const open = strangers.filter(({ ended }) => ended() === undefined).length;
  assert(open > 0 && open <= MAX_STRANGERS, `${open} are open`);
  for (const { socket } of strangers) socket.destroy();
});
