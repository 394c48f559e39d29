/** Frames <-> bytes against `docs/PROTOCOL.md` (PROTOCOL): round trips, every chop, garbage, bounds. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { dataFrame, messagesIn } from "../../tests/support/message_batch.ts";
import { MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import { encodeFrame } from "./codec.ts";
import { COMPRESSIONS } from "./compression.ts";
import { type Frame, type Hello, type NodeIdentity, PROTOCOL_VERSION } from "./frame.ts";
import { BATCH_BYTES, FrameBatch } from "./frame_batch.ts";
import { FrameDecoder, MessageAssembler } from "./frame_decoder.ts";
import { MAX_REFUSAL_TEXT } from "./handshake.ts";
import { FRAGMENT_BYTES, MAX_FRAME_BYTES, MAX_HANDSHAKE_BYTES, MAX_MESSAGE_BYTES } from "./layout.ts";

/** Records as object literals make them: with a prototype. */
function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

const lsn = fc.bigInt(0n, 0xffff_ffff_ffff_ffffn).map(toLsn);
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const name = fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" });
const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 });

const identity: fc.Arbitrary<NodeIdentity> = record({
  cluster: name,
  node: name,
  incarnation: fc.uuid(),
  systemIdentifier: fc.bigInt(0n, 0xffff_ffff_ffff_ffffn).map(String),
  timeline: uint32,
  serverVersion: uint32,
  program: name,
});

const frame: fc.Arbitrary<Frame> = fc.oneof(
  record({
    kind: fc.constant("hello" as const),
    protocol: uint32,
    identity,
    receiver: name,
    url: fc.option(fc.webUrl()),
    slotLsn: lsn,
    ackedLsn: fc.option(lsn),
    walLsn: lsn,
    compression: fc.array(fc.string({ maxLength: 32 }), { maxLength: 4 }),
    policies: fc.option(fc.string({ maxLength: 64 })),
  }),
  record({
    kind: fc.constant("welcome" as const),
    protocol: uint32,
    identity,
    resumeLsn: lsn,
    copied: fc.option(
      fc.record({ snapshot: fc.constantFrom("1:1:", "1:9:3,4"), until: lsn }, { noNullPrototype: true }),
    ),
    dialsBack: fc.boolean(),
    binaryTypes: fc.array(uint32, { maxLength: 256 }),
    compression: fc.option(fc.constantFrom(...COMPRESSIONS)),
    policies: fc.option(fc.string({ maxLength: 64 })),
  }),
  record({
    kind: fc.constant("refusal" as const),
    errorKind: fc.string({ maxLength: 50 }),
    message: fc.string({ unit: "grapheme" }),
    hint: fc.string(),
  }),
  fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 })
    .map((messages) => dataFrame(...messages)),
  bytes.chain((piece) =>
    record({
      kind: fc.constant("fragment_start" as const),
      totalLength: fc.integer({ min: piece.length + 1, max: MAX_MESSAGE_BYTES }),
      bytes: fc.constant(piece),
    })
  ),
  record({ kind: fc.constant("fragment" as const), bytes }),
  record({ kind: fc.constant("ack" as const), endLsn: lsn }),
  record({
    kind: fc.constant("heartbeat" as const),
    sentAt: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  }),
  record({
    kind: fc.constant("heartbeat" as const),
    sentAt: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    clock: record({
      uncertainty: uint32,
      echo: fc.option(record({
        sentAt: fc.bigInt(1n, 2n ** 63n - 1n),
        heldFor: fc.bigInt(0n, 0xffff_ffff_ffff_ffffn),
      })),
    }),
  }),
  record({
    kind: fc.constant("caught_up" as const),
    committedBefore: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  }),
  record({ kind: fc.constant("passed" as const), walLsn: lsn }),
  record({
    kind: fc.constant("seen" as const),
    nodes: fc.array(
      record({ node: name, position: lsn, timestamp: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) }),
      { minLength: 1, maxLength: 5 },
    ),
  }),
  record({ kind: fc.constantFrom("try_again" as const, "call_back" as const) }),
  record({
    kind: fc.constant("want_row" as const),
    id: uint32,
    schema: name,
    name,
    key: fc.array(record({ column: name, value: fc.uint8Array({ maxLength: 300 }) }), { maxLength: 3 }),
  }),
  record({
    kind: fc.constant("row" as const),
    id: uint32,
    isLast: fc.boolean(),
    bytes: fc.uint8Array({ maxLength: 300 }),
  }),
);

/** The same frame with plain arrays for bytes: a view and a copy of the same bytes become equal. */
function plain(frame: Frame): unknown {
  if (frame.kind === "data") {
    return { kind: frame.kind, messages: messagesIn(frame).map((bytes) => [...bytes]) };
  }
  if (frame.kind === "want_row") {
    return { ...frame, key: frame.key.map(({ column, value }) => ({ column, value: [...value] })) };
  }
  if (frame.kind === "fragment_start" || frame.kind === "fragment" || frame.kind === "row") {
    return { ...frame, bytes: [...frame.bytes] };
  }
  return { ...frame };
}

function decodeAll(chunks: Iterable<Uint8Array>): Frame[] {
  const decoder = new FrameDecoder();
  const frames = [...chunks].flatMap((chunk) => decoder.push(chunk));
  decoder.finish();
  return frames;
}

function chop(stream: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const bounds = [0, ...cuts.map((cut) => cut % (stream.length + 1)).sort((a, b) => a - b), stream.length];
  return bounds.slice(1).map((end, index) => stream.slice(bounds[index], end));
}

/** The message of the `protocol` error that `run` throws. */
function protocolError(run: () => unknown): string {
  let message = "";
  assert.throws(run, (error: unknown) => {
    assert(error instanceof MmliteError);
    assert.equal(error.kind, "protocol");
    message = error.message;
    return true;
  });
  return message;
}

function rawFrame(type: number, payload: Uint8Array, length = payload.length + 1): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt32BE(length);
  header[4] = type;
  return Buffer.concat([header, payload]);
}

const HELLO: Hello = {
  kind: "hello",
  protocol: PROTOCOL_VERSION,
  identity: {
    cluster: "main",
    node: "ams",
    incarnation: "0d0f6d2e-6d6a-4d5c-9c3d-2f3f8f6f1a10",
    systemIdentifier: "7423897429384723984",
    timeline: 1,
    serverVersion: 180004,
    program: "0.1.0",
  },
  receiver: "fra",
  url: null,
  slotLsn: toLsn(0x16B374D848n),
  ackedLsn: null,
  walLsn: toLsn(0x16B374D900n),
  compression: ["zstd", "gzip"],
  policies: "0123456789abcdef",
};

Deno.test("frames survive encoding and decoding, coalesced and chopped anywhere (PROTOCOL 4)", () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 6 }), fc.array(fc.nat(), { maxLength: 8 }), (frames, cuts) => {
      const stream = Buffer.concat(frames.map(encodeFrame));
      const decoded = decodeAll(chop(stream, cuts));
      assert.deepEqual(decoded.map(plain), frames.map(plain));
    }),
  );
});

Deno.test("a stream chopped in two at every offset decodes to the same frames (PROTOCOL 4)", () => {
  const frames: Frame[] = [
    HELLO,
    dataFrame(Buffer.from("Bxyz"), Buffer.alloc(0), Buffer.from("Cxyz")),
    { kind: "ack", endLsn: toLsn(7n) },
    { kind: "heartbeat", sentAt: -1n },
    { kind: "caught_up", committedBefore: -1n },
    { kind: "passed", walLsn: toLsn(1n) },
    { kind: "try_again" },
    { kind: "call_back" },
  ];
  const stream = Buffer.concat(frames.map(encodeFrame));
  for (let cut = 0; cut <= stream.length; cut++) {
    const decoded = decodeAll([stream.subarray(0, cut), stream.subarray(cut)]);
    assert.deepEqual(decoded.map(plain), frames.map(plain));
  }
  assert.deepEqual(decodeAll([...stream].map((byte) => Uint8Array.of(byte))).map(plain), frames.map(plain));
});

Deno.test("fixed layouts are byte for byte those of the tables (PROTOCOL 4)", () => {
  const hex = (frame: Frame) => Buffer.from(encodeFrame(frame)).toString("hex");
  assert.equal(hex({ kind: "ack", endLsn: toLsn(0x16B374D848n) }), "0000000907" + "00000016b374d848");
  assert.equal(hex({ kind: "heartbeat", sentAt: -2n }), "0000000908" + "fffffffffffffffe");
  assert.equal(hex({ kind: "caught_up", committedBefore: 3n }), "0000000909" + "0000000000000003");
  assert.equal(hex({ kind: "try_again" }), "000000020b" + "00");
  assert.equal(hex({ kind: "passed", walLsn: toLsn(0x16B374D848n) }), "000000090e" + "00000016b374d848");
  assert.equal(hex({ kind: "call_back" }), "000000020f" + "00");
  assert.equal(
    hex(dataFrame(Buffer.from("ab"), Buffer.alloc(0))),
    "0000000b04" + "000000026162" + "00000000",
  );
  assert.equal(
    hex({ kind: "fragment_start", totalLength: 3, bytes: Buffer.from("a") }),
    "0000000605" + "00000003" + "61",
  );
  assert.equal(hex({ kind: "fragment", bytes: Buffer.from("bc") }), "0000000306" + "6263");
  const json = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  assert.equal(json.slot_lsn, "16/B374D848");
  assert.equal(json.identity.system_identifier, "7423897429384723984");
  assert.equal(json.acked_lsn, null);
});

Deno.test("the end of the stream inside a frame is an error, between frames it is not (PROTOCOL 4)", () => {
  const stream = encodeFrame({ kind: "ack", endLsn: toLsn(1n) });
  for (let cut = 1; cut < stream.length; cut++) {
    const message = protocolError(() => decodeAll([stream.subarray(0, cut)]));
    assert.match(
      message,
      cut < 5 ? /ended inside a frame/ : /ended inside a ack frame: \d of 8 payload bytes/,
    );
  }
  assert.deepEqual(decodeAll([]), []);
});

Deno.test("garbage is only ever a protocol error", () => {
  const garbage = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.tuple(fc.integer({ min: 0, max: 10 }), fc.uint8Array({ maxLength: 100 }))
      .map(([type, payload]) => rawFrame(type, payload)),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.jsonValue())
      .map(([type, json]) => rawFrame(type, Buffer.from(JSON.stringify(json)))),
  );
  fc.assert(
    fc.property(fc.array(garbage, { maxLength: 5 }), (chunks) => {
      try {
        decodeAll(chunks);
      } catch (error) {
        assert(error instanceof MmliteError, String(error));
        assert.equal(error.kind, "protocol");
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("a frame too long for its type is refused from its header, before its payload (PROTOCOL 5)", () => {
  const header = (type: number, length: number) => rawFrame(type, new Uint8Array(), length);
  const read = (bytes: Uint8Array) => protocolError(() => new FrameDecoder().push(bytes));
  assert.match(
    read(header(1, MAX_HANDSHAKE_BYTES + 2)),
    /hello frame \(type 1\): length 65538 is outside 3 to 65537/,
  );
  assert.match(read(header(4, MAX_FRAME_BYTES + 1)), /data frame \(type 4\): length 1048577 is outside/);
  assert.match(read(header(7, 8)), /ack frame \(type 7\): length 8 is outside 9 to 9/);
  assert.match(read(header(200, 0xffff_ffff)), /unknown type 200 \(length 4294967295\)/);
  assert.match(read(header(4, 0)), /length 0 is outside/);
  assert.match(read(Buffer.from("HTTP/1.1 400 Bad Request")), /unknown type 47/);
  new FrameDecoder().push(header(4, MAX_FRAME_BYTES));
});

Deno.test("a message inside a data frame may not run past the frame (PROTOCOL 4.4)", () => {
  const read = (payload: string) =>
    protocolError(() => new FrameDecoder().push(rawFrame(4, Buffer.from(payload, "hex"))));
  assert.match(read("00000002" + "61"), /message 1 runs past its 5 bytes/);
  assert.match(read("00000000" + "ffffffff" + "61"), /message 2 runs past/);
  assert.match(read("00000000" + "0000"), /message 2 runs past/);
});

Deno.test("a handshake names the fields at fault and never quotes the text (PROTOCOL 3)", () => {
  const read = (json: unknown) =>
    protocolError(() => new FrameDecoder().push(rawFrame(1, Buffer.from(JSON.stringify(json)))));
  const good = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  assert.equal(
    read({ ...good, slot_lsn: "secret", receiver: undefined }),
    "Cannot read a hello frame: wrong or missing receiver, slot_lsn",
  );
  assert.match(read({ ...good, identity: { ...good.identity, timeline: "1" } }), /identity\.timeline$/);
  assert.match(read([]), /\(whole\)$/);
  assert.match(
    protocolError(() => new FrameDecoder().push(rawFrame(1, Buffer.from("{secret")))),
    /^Cannot read a hello frame: its 7 bytes are not JSON$/,
  );
});

Deno.test("a hello of another protocol version is read if it fits and else says so (PROTOCOL 6)", () => {
  const good = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  const push = (json: unknown) => new FrameDecoder().push(rawFrame(1, Buffer.from(JSON.stringify(json))));
  const [frame] = push({ ...good, protocol: 99, later: true });
  assert.equal((frame as Hello).protocol, 99);
  assert.match(protocolError(() => push({ protocol: 99 })), /it speaks protocol 99, this node 4/);
});

Deno.test("nodes that say nothing of compression have none, and unknown algorithms may be offered (PROTOCOL 3)", () => {
  const { compression: _, ...older } = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  const read = (type: number, json: unknown) =>
    decodeAll([rawFrame(type, Buffer.from(JSON.stringify(json)))])[0];
  const [none, some] = [read(1, older), read(1, { ...older, compression: ["lz9", "zstd"] })];
  assert(none.kind === "hello" && some.kind === "hello");
  assert.deepEqual([none.compression, some.compression], [[], ["lz9", "zstd"]]);
  const { protocol, identity } = older;
  const welcome = read(2, { protocol, identity, resume_lsn: "0/1" });
  assert(welcome.kind === "welcome" && welcome.compression === null);
  const wanting = (compression: unknown) => read(2, { protocol, identity, resume_lsn: "0/1", compression });
  assert.match(protocolError(() => wanting("lz9")), /wrong or missing compression$/);
});

Deno.test("nodes that say nothing of policies are read (PROTOCOL 3)", () => {
  const { policies, ...older } = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  assert.equal(policies, HELLO.policies);
  const read = (type: number, json: unknown) =>
    decodeAll([rawFrame(type, Buffer.from(JSON.stringify(json)))])[0];
  const [hello, welcome] = [read(1, older), read(2, { ...older, resume_lsn: "0/1", compression: null })];
  assert(hello.kind === "hello" && welcome.kind === "welcome");
  assert.deepEqual([hello.policies, welcome.policies], [null, null]);
  assert.match(
    protocolError(() => read(1, { ...older, policies: "x".repeat(65) })),
    /wrong or missing policies$/,
  );
});

Deno.test("a welcome that does not say who dials is from a node that dials (PROTOCOL 3)", () => {
  const { protocol, identity } = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  const payload = Buffer.from(JSON.stringify({ protocol, identity, resume_lsn: "0/1" }));
  const [frame] = decodeAll([rawFrame(2, payload)]);
  assert(frame.kind === "welcome" && frame.dialsBack);
});

Deno.test("a welcome that names no types wants text (PROTOCOL 3.2)", () => {
  const { protocol, identity } = JSON.parse(Buffer.from(encodeFrame(HELLO).subarray(5)).toString());
  const read = (more: unknown) => {
    const json = { protocol, identity, resume_lsn: "0/1", ...more as object };
    const [frame] = decodeAll([rawFrame(2, Buffer.from(JSON.stringify(json)))]);
    assert(frame.kind === "welcome");
    return frame.binaryTypes;
  };
  assert.deepEqual([read({}), read({ binary_types: [23, 25] })], [[], [23, 25]]);
  assert.match(protocolError(() => read({ binary_types: [-1] })), /wrong or missing binary_types/);
});

Deno.test("a refusal of any length fits", () => {
  const endless = "\u0001".repeat(1_000_000);
  const [frame] = decodeAll([
    encodeFrame({ kind: "refusal", errorKind: "internal", message: endless, hint: endless }),
  ]);
  assert.equal(frame.kind === "refusal" && frame.message.length, MAX_REFUSAL_TEXT);
});

Deno.test("frames inside one chunk are views of it, and views outlive the next push", () => {
  const decoder = new FrameDecoder();
  const chunk = encodeFrame(dataFrame(Buffer.from("first")));
  const [inside] = decoder.push(chunk);
  assert(inside.kind === "data");
  assert.equal(messagesIn(inside)[0].buffer, chunk.buffer);
  decoder.push(chunk.slice(0, 8));
  const [spanning] = decoder.push(chunk.slice(8));
  decoder.push(encodeFrame(dataFrame(Buffer.from("other"))));
  assert(spanning.kind === "data");
  assert.equal(Buffer.from(messagesIn(spanning)[0]).toString(), "first");
});

/** What the receiver hands on: the messages of all data frames and fragments, in order. */
function reassemble(frames: readonly Frame[]): Uint8Array[] {
  const assembler = new MessageAssembler();
  return frames.flatMap((frame) => {
    if (frame.kind === "fragment_start" || frame.kind === "fragment") return assembler.push(frame) ?? [];
    assembler.assertWhole(frame.kind);
    return frame.kind === "data" ? messagesIn(frame) : [];
  });
}

Deno.test("messages of every size pass a batch in order (PROTOCOL 4.4 to 4.6)", () => {
  const length = fc.oneof(
    fc.integer({ min: 0, max: 400 }),
    fc.integer({ min: 0, max: BATCH_BYTES * 2 }),
    fc.integer({ min: FRAGMENT_BYTES - 10, max: FRAGMENT_BYTES + 10 }),
    fc.integer({ min: FRAGMENT_BYTES, max: FRAGMENT_BYTES * 5 }),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(length, fc.nat(255)), { maxLength: 12 }),
      fc.nat(6),
      (specs, drainEvery) => {
        const messages = specs.map(([length, fill]) => Buffer.alloc(length, Uint8Array.of(fill, 1, 2, 3)));
        const batch = new FrameBatch();
        const pieces: Uint8Array[] = [];
        for (const [index, message] of messages.entries()) {
          if (index % 2 === 0) batch.add(message);
          else {batch.add(
              Buffer.concat([Buffer.from("xy"), message, Buffer.from("z")]),
              2,
              2 + message.length,
            );}
          if (index % (drainEvery + 1) === 0) pieces.push(...batch.drain());
        }
        const waiting = batch.byteLength;
        const last = [...batch.drain()];
        assert(waiting <= last.reduce((sum, piece) => sum + piece.length, 0));
        for (const piece of last) assert.equal(decodeAll([piece]).length, 1);
        assert.equal(batch.byteLength, 0);
        const received = reassemble(decodeAll([...pieces, ...last]));
        assert.equal(received.length, messages.length);
        for (const [index, message] of messages.entries()) assert(message.equals(received[index]));
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("a long message is cut only as it is drained, and put together in one piece of memory", () => {
  const message = Buffer.alloc(3 * FRAGMENT_BYTES + 1, 7);
  const batch = new FrameBatch();
  batch.add(message);
  const pieces: Uint8Array[] = [];
  for (const piece of batch.drain()) {
    pieces.push(piece);
    if (pieces.length === 1) message.fill(8, 2 * FRAGMENT_BYTES);
  }
  assert.equal(pieces.length, 4);
  const [received] = reassemble(decodeAll(pieces));
  assert.equal(received.buffer.byteLength, message.length);
  assert(message.equals(received));
});

Deno.test("fragments that make no message are refused (PROTOCOL 4.5, 4.6)", () => {
  const start: Frame = { kind: "fragment_start", totalLength: 4, bytes: Buffer.from("ab") };
  const fragment: Frame = { kind: "fragment", bytes: Buffer.from("cde") };
  const data = dataFrame(Buffer.from("x"));
  assert.match(protocolError(() => reassemble([fragment])), /no message was begun/);
  assert.match(protocolError(() => reassemble([start, fragment])), /5 bytes for a message of 4/);
  assert.match(protocolError(() => reassemble([start, data])), /data frame: only 2 of 4 bytes/);
  assert.match(protocolError(() => reassemble([start, start])), /fragment_start frame: only 2 of 4 bytes/);
  const announce = (total: number) => {
    const payload = Buffer.from("0000000061", "hex");
    payload.writeUInt32BE(total);
    return protocolError(() => new FrameDecoder().push(rawFrame(5, payload)));
  };
  assert.match(announce(MAX_MESSAGE_BYTES + 1), /outside 2 to 1073741824/);
  assert.match(announce(1), /outside 2 to/);
});
