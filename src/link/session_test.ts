/** One attempt of a link against a receiver that the test plays. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { memoryPair, takeEnd } from "../../tests/support/channel_pair.ts";
import { dataFrame, messagesIn } from "../../tests/support/message_batch.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { hello, SENDER, TestSource, welcome } from "../../tests/support/session_parts.ts";
import { AppliedHistory } from "../applied_history.ts";
import { type ErrorKind, MmliteError } from "../errors.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import type { Channel } from "../wire/channel.ts";
import { COMPRESSIONS } from "../wire/compression.ts";
import { openChunkReader } from "../wire/decompressor.ts";
import type { Frame, Hello } from "../wire/frame.ts";
import { FrameDecoder } from "../wire/frame_decoder.ts";
import { FRAGMENT_BYTES } from "../wire/layout.ts";
import type { SessionPorts } from "./ports.ts";
import { runSession } from "./session.ts";

/** A running session; `log` is what it did to the rest of the node. */
function startSession({ parts = {}, ...ports }:
  & { parts?: Partial<Hello> }
  & Partial<
    Pick<
      SessionPorts,
      | "prepare"
      | "connect"
      | "hello"
      | "recognise"
      | "history"
      | "readClock"
      | "readRow"
      | "storeAck"
      | "asksAgain"
      | "callsBack"
    >
  > = {}) {
  const pair = memoryPair();
  const source = new TestSource();
  const stop = new AbortController();
  const log: string[] = [];
  const written: number[] = [];
  const running = runSession(
    {
      prepare: () => Promise.resolve(),
      connect: () => Promise.resolve(pair.dialling),
      hello: () => Promise.resolve(hello(parts)),
      recognise: () => Promise.resolve(),
      openSource: (startLsn) => {
        log.push(`open ${startLsn}`);
        return Promise.resolve(source);
      },
      // Further than any test goes.
      clock: { read: () => ({ time: 100_000n, uncertaintyMs: 1 }) },
      history: new AppliedHistory(),
      readClock: () => Promise.resolve({ timestamp: 0n, walLsn: toLsn(1n << 60n) }),
      asksAgain: aborted,
      callsBack: aborted,
      readRow: () => Promise.resolve({ kind: "none", at: 0n }),
      storeAck: (endLsn) => {
        log.push(`store ${endLsn}`);
        return Promise.resolve();
      },
      ...ports,
    },
    {
      started: ({ resumeLsn, walLsn }) => void log.push(`started ${resumeLsn} ${walLsn}`),
      sent: ({ endLsn, messages }) => void log.push(`sent ${endLsn} ${messages.byteLength}`),
      wrote: (bytes) => void written.push(bytes),
      acked: (endLsn) => void log.push(`acked ${endLsn}`),
      clock: ({ offsetMs, uncertaintyMs }) => void log.push(`clock ${offsetMs} ± ${uncertaintyMs}`),
    },
    stop.signal,
  );
  running.catch(() => {});
  return { peer: takeEnd(pair.accepting), source, log, written, running, stop: () => stop.abort() };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

type Run = ReturnType<typeof startSession>;

async function startStreaming(ports: Parameters<typeof startSession>[0] = {}): Promise<Run> {
  const run = startSession(ports);
  await run.peer.hear("hello");
  await run.peer.say(welcome());
  await eventually("the source to be open", () => run.log.includes("open 100"), { intervalMs: 2 });
  return run;
}

async function breaks({ running, source, log }: Run, kind: ErrorKind, message: RegExp): Promise<void> {
  await within(
    "the session to break",
    5_000,
    assert.rejects(running, (error) => {
      assert(error instanceof MmliteError, String(error));
      assert.equal(error.kind, kind);
      assert.match(error.message, message);
      return true;
    }),
  );
  assert.equal(source.closed, log.some((entry) => entry.startsWith("open")));
}

Deno.test("what the slot yields goes out verbatim, from where the receiver stands", async () => {
  const run = startSession();
  assert.deepEqual(await run.peer.hear("hello"), hello());
  await run.peer.say(welcome({ resumeLsn: toLsn(120n) }));
  const messages = [Buffer.from("begin"), Buffer.from("commit")];
  run.source.put(200n, ...messages);
  const data = await run.peer.hear("data");
  assert.deepEqual(messagesIn(data).map((message) => Buffer.from(message)), messages);
  await eventually("the batch to be counted", () => run.log.includes("sent 200 11"), { intervalMs: 2 });
  assert.deepEqual(run.log, ["started 120 500", "open 120", "sent 200 11"]);
  // A heartbeat first, which exchanges clocks.
  assert.deepEqual(run.written, [5 + 28, 5 + 4 + 5 + 4 + 6]);
  run.stop();
  await run.running;
});

Deno.test("the receiver is told once all that was committed before a moment has gone out", async () => {
  const run = await startStreaming({
    readClock: () => Promise.resolve({ timestamp: 77n, walLsn: toLsn(300n) }),
  });
  run.source.put(200n, Buffer.from("before"));
  run.source.put(300n, Buffer.from("last"));
  run.source.put(400n, Buffer.from("after"));
  for (const expected of ["before", "last"]) {
    const [message] = messagesIn(await run.peer.hear("data"));
    assert.equal(Buffer.from(message).toString(), expected);
  }
  assert.deepEqual(await run.peer.hear("caught_up"), { kind: "caught_up", committedBefore: 77n });
  const [message] = messagesIn(await run.peer.hear("data"));
  assert.equal(Buffer.from(message).toString(), "after");
  run.stop();
  await run.running;
});

Deno.test("the receiver is told how far the WAL is read where no transaction says it", async () => {
  const run = await startStreaming();
  run.source.put(200n, Buffer.from("last"));
  await run.peer.hear("data");
  run.source.pass(200n);
  run.source.pass(250n);
  const passed = await within("the position", 5_000, run.peer.hear("passed"));
  assert.equal(passed.walLsn, 250n);
  run.stop();
  await run.running;
});

Deno.test("a moment that an idle slot has passed already is told at once", async () => {
  const clock = Promise.withResolvers<{ timestamp: bigint; walLsn: Lsn }>();
  const run = await startStreaming({ readClock: () => clock.promise });
  run.source.put(300n, Buffer.from("last"));
  await eventually("the batch to be sent", () => run.log.includes("sent 300 4"), { intervalMs: 2 });
  await run.peer.hear("data");
  clock.resolve({ timestamp: 77n, walLsn: toLsn(300n) });
  const mark = await within("the mark", 5_000, run.peer.hear("caught_up"));
  assert.equal(mark.committedBefore, 77n);
  run.stop();
  await run.running;
});

for (
  const [port, frame, what] of [
    ["asksAgain", "try_again", "try its own link again"],
    ["callsBack", "call_back", "open a stream for questions"],
  ] as const
) {
  Deno.test(`the peer is asked to ${what}, each time that this is wanted`, async () => {
    const wanted = [Promise.resolve(), Promise.resolve()];
    const run = await startStreaming({ [port]: (signal: AbortSignal) => wanted.pop() ?? aborted(signal) });
    for (let i = 0; i < 2; i++) await within("the frame", 5_000, run.peer.hear(frame));
    run.stop();
    await run.running;
  });
}

Deno.test("positions are read when there is a channel, however long it took", async () => {
  const dialled = Promise.withResolvers<Channel>();
  const order: string[] = [];
  const run = startSession({
    prepare: () => Promise.resolve(void order.push("prepare")),
    connect: () => dialled.promise.finally(() => order.push("connect")),
    hello: () => {
      order.push("hello");
      return Promise.resolve(hello());
    },
  });
  const pair = memoryPair();
  dialled.resolve(pair.dialling);
  await takeEnd(pair.accepting).hear("hello");
  assert.deepEqual(order, ["prepare", "connect", "hello"]);
  run.stop();
  await run.running;
});

Deno.test("a slot that cannot be used breaks the session before it connects", async () => {
  const lost = new MmliteError("slot_lost", "Cannot use the slot");
  const connect = () => assert.fail("the session connected");
  await breaks(
    startSession({ prepare: () => Promise.reject(lost), connect }),
    "slot_lost",
    /Cannot use the slot/,
  );
});

Deno.test("positions that cannot be read break the session, and its channel", async () => {
  const run = startSession({ hello: () => Promise.reject(new MmliteError("transient", "Cannot ask")) });
  await breaks(run, "transient", /Cannot ask/);
  await assert.rejects(run.peer.hear("hello"), { kind: "unreachable" });
});

for (const compression of COMPRESSIONS) {
  Deno.test(`what goes out after the hello is compressed with ${compression} where the welcome says so`, async () => {
    const run = startSession({ parts: { compression: ["lz9", "zstd", "gzip"] } });
    const chunks = run.peer.channel.incoming[Symbol.asyncIterator]();
    const { value: first } = await chunks.next();
    assert.equal(new FrameDecoder().push(first)[0].kind, "hello");
    await run.peer.say(welcome({ compression }));
    const reader = openChunkReader(chunks, { compression, remote: "sender" });
    const decoder = new FrameDecoder();
    const { value: beat } = await within("a heartbeat", 5_000, reader.next());
    assert.equal(decoder.push(beat!)[0].kind, "heartbeat");
    for (const endLsn of [200n, 300n]) {
      run.source.put(endLsn, Buffer.alloc(1_000, "x"));
      const { value } = await within("a frame", 5_000, reader.next());
      const [frame, ...rest] = decoder.push(value!);
      assert(frame.kind === "data" && rest.length === 0);
      assert.deepEqual(Buffer.from(messagesIn(frame)[0]), Buffer.alloc(1_000, "x"));
    }
    await eventually("both to be counted", () => run.log.includes("sent 300 1000"), { intervalMs: 2 });
    assert(run.written.reduce((sum, bytes) => sum + bytes, 0) < 200, `${run.written}`);
    reader.close();
    run.stop();
    await run.running;
  });
}

Deno.test("nothing goes out between the hello and the welcome, nor after one that wants what was not offered", async () => {
  const run = startSession({ parts: { compression: ["zstd"] } });
  const chunks = run.peer.channel.incoming[Symbol.asyncIterator]();
  await chunks.next();
  await run.peer.say(welcome({ compression: "gzip" }));
  await breaks(run, "protocol", /it wants gzip, which was not offered/);
  await assert.rejects(chunks.next(), { kind: "unreachable" });
});

Deno.test("a message too long for one frame goes out in fragments", async () => {
  const run = await startStreaming();
  run.source.put(200n, new Uint8Array(FRAGMENT_BYTES + 1));
  assert.equal((await run.peer.hear("fragment_start")).totalLength, FRAGMENT_BYTES + 1);
  assert.equal((await run.peer.hear("fragment")).bytes.length, 1);
  run.stop();
  await run.running;
});

/** A Begin of pgoutput. */
function begin(commitLsn: bigint): Buffer {
  const bytes = Buffer.alloc(21);
  bytes.write("B");
  bytes.writeBigUInt64BE(commitLsn, 1);
  return bytes;
}

Deno.test("what this node had of others goes out before a transaction, where it has changed", async () => {
  const history = new AppliedHistory();
  history.begin("nyc", { position: toLsn(5n), timestamp: 50n });
  const run = await startStreaming({ history });
  history.reached(toLsn(210n));
  history.committing("nyc", toLsn(9n), 90n);
  history.visible("nyc", toLsn(9n), toLsn(230n));
  run.source.put(260n, begin(200n), begin(205n), begin(220n), begin(240n));
  const hear = async () => (await run.peer.hear("seen")).nodes;
  const count = async () => messagesIn(await run.peer.hear("data")).length;
  assert.deepEqual(await hear(), [{ node: "nyc", position: 5n, timestamp: 50n }]);
  assert.equal(await count(), 2);
  assert.deepEqual(await hear(), [{ node: "nyc", position: 9n, timestamp: 50n }]);
  assert.equal(await count(), 1);
  assert.deepEqual(await hear(), [{ node: "nyc", position: 9n, timestamp: 90n }]);
  assert.equal(await count(), 1);
  run.stop();
  await run.running;
});

Deno.test("an ack is stored, and then confirmed to the slot", async () => {
  const run = await startStreaming();
  run.source.put(200n, Buffer.from("x"));
  await run.peer.hear("data");
  await run.peer.say({ kind: "ack", endLsn: toLsn(200n) });
  await eventually("the ack to be confirmed", () => run.log.includes("acked 200"), { intervalMs: 2 });
  assert.deepEqual(run.log.slice(-2), ["store 200", "acked 200"]);
  assert.deepEqual(run.source.confirmed, [200n]);
  run.stop();
  await run.running;
});

Deno.test("an ack that cannot be stored breaks the session and is not confirmed", async () => {
  const failure = new MmliteError("transient", "Cannot store the ack");
  const run = await startStreaming({ storeAck: () => Promise.reject(failure) });
  await run.peer.say({ kind: "ack", endLsn: toLsn(100n) });
  await breaks(run, "transient", /Cannot store the ack/);
  assert.deepEqual(run.source.confirmed, []);
});

Deno.test("an ack beyond what was sent breaks the session and is not stored", async () => {
  const run = await startStreaming();
  await run.peer.say({ kind: "ack", endLsn: toLsn(101n) });
  await breaks(run, "protocol", /it acked 0\/65, and 0\/64 was sent/);
  assert(!run.log.some((entry) => entry.startsWith("store")));
});

const PASTS: [what: string, hello: Partial<Hello>, resumeLsn: bigint, why: RegExp][] = [
  ["behind its own ack", {}, 99n, /stands at 0\/63, behind its own ack 0\/64/],
  ["before the slot that was made for it", { ackedLsn: null }, 49n, /the slot for it begins at 0\/32/],
  ["beyond this server's WAL", {}, 501n, /up to 0\/1F5, and this server's WAL ends at 0\/1F4/],
];
for (const [what, parts, resumeLsn, why] of PASTS) {
  Deno.test(`a receiver that stands ${what} is fenced before the slot is read`, async () => {
    const readClock = () => Promise.resolve({ timestamp: 0n, walLsn: toLsn(500n) });
    const run = startSession({ parts, readClock });
    await run.peer.hear("hello");
    await run.peer.say(welcome({ resumeLsn: toLsn(resumeLsn) }));
    await breaks(run, "fenced", why);
    assert.deepEqual(run.log, []);
  });
}

Deno.test("a receiver may stand anywhere between its ack, or the slot's beginning, and the WAL's end", async () => {
  for (const [parts, resumeLsn] of [[{}, 100n], [{}, 500n], [{ ackedLsn: null }, 50n]] as const) {
    const run = startSession({ parts });
    await run.peer.hear("hello");
    await run.peer.say(welcome({ resumeLsn: toLsn(resumeLsn) }));
    await eventually("the slot to be read", () => run.log.includes(`open ${resumeLsn}`), { intervalMs: 2 });
    run.stop();
    await run.running;
  }
});

Deno.test("a receiver may have had from another node what was committed after the Hello", async () => {
  const readClock = () => Promise.resolve({ timestamp: 0n, walLsn: toLsn(600n) });
  const run = startSession({ readClock });
  await run.peer.hear("hello");
  await run.peer.say(welcome({ resumeLsn: toLsn(600n) }));
  await eventually("the slot to be read", () => run.log.includes("open 600"), { intervalMs: 2 });
  run.stop();
  await run.running;
});

Deno.test("a receiver of another protocol is refused", async () => {
  const run = startSession();
  await run.peer.say(welcome({ protocol: 99 }));
  await breaks(run, "refused", /speaks protocol 99, this node 4/);
});

Deno.test("a receiver that is not recognised gets nothing", async () => {
  const stranger = new MmliteError("fenced", "Cannot replicate with a stranger");
  const run = startSession({ recognise: () => Promise.reject(stranger) });
  await run.peer.say(welcome());
  await breaks(run, "fenced", /stranger/);
  assert.deepEqual(run.log, []);
});

Deno.test("a refusal breaks the session as the error that it carries, at any time", async () => {
  const refusal: Frame = {
    kind: "refusal",
    errorKind: "schema_mismatch",
    message: "No table",
    hint: "Make it",
  };
  const early = startSession();
  await early.peer.say(refusal);
  await breaks(early, "schema_mismatch", /No table/);
  const late = await startStreaming();
  await late.peer.say(refusal);
  await breaks(late, "schema_mismatch", /No table/);
});

Deno.test("frames that only senders send break the session", async () => {
  for (const frame of [hello(), dataFrame(Buffer.from("x"))]) {
    const run = await startStreaming();
    await run.peer.say(frame);
    await breaks(run, "protocol", new RegExp(`sent a ${frame.kind} frame`));
  }
});

Deno.test("a receiver that ends or breaks the stream is unreachable", async () => {
  const ended = await startStreaming();
  await ended.peer.channel.end();
  await breaks(ended, "unreachable", /ended the stream/);
  const broken = await startStreaming();
  broken.peer.channel.destroy();
  await breaks(broken, "unreachable", /broken/);
});

Deno.test("a slot that fails breaks the session with its error, and the stream with it", async () => {
  const run = await startStreaming();
  run.source.fail(new MmliteError("slot_lost", "Cannot read the slot"));
  await breaks(run, "slot_lost", /Cannot read the slot/);
  await assert.rejects(run.peer.hear("data"), { kind: "unreachable" });
});

Deno.test("a heartbeat that answers one tells the receiver's clock", async () => {
  const run = await startStreaming();
  const echo = { sentAt: 60_000n, heldFor: 20_000n };
  await run.peer.say({ kind: "heartbeat", sentAt: 105_000n, clock: { uncertainty: 2_000, echo } });
  // 25 ms there and -5 ms back by the two clocks, which it itself knows by 2 ms and we by 1.
  await eventually("the clock", () => run.log.includes("clock 15 ± 13"), { intervalMs: 2 });
  run.stop();
  await run.running;
});

Deno.test("an abort ends the session without an error, in the handshake and in the stream", async () => {
  const early = startSession();
  assert.equal((await early.peer.hear("hello")).identity.node, SENDER.node);
  early.stop();
  await within("the handshake to end", 5_000, early.running);
  const late = await startStreaming();
  late.stop();
  await within("the stream to end", 5_000, late.running);
  assert(late.source.closed);
  await assert.rejects(late.peer.hear("data"), { kind: "unreachable" });
});
