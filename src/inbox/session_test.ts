/** Receiving sessions against senders that the test plays. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { memoryPair, takeEnd, type TestEnd } from "../../tests/support/channel_pair.ts";
import { dataFrame } from "../../tests/support/message_batch.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { hello, NOTHING_UNSENT, RECEIVER, SENDER, welcome } from "../../tests/support/session_parts.ts";
import { type ErrorKind, MmliteError } from "../errors.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import { BINARY_TYPES } from "../pgoutput/binary_text.ts";
import { encodeFrame } from "../wire/codec.ts";
import { type Compression, COMPRESSIONS } from "../wire/compression.ts";
import { openFrameWriter } from "../wire/compressor.ts";
import type { Hello } from "../wire/frame.ts";
import { FRAGMENT_BYTES } from "../wire/layout.ts";
import { HANDSHAKE_TIMEOUT_MS } from "../wire/frame_stream.ts";
import { Inbox } from "./inbox.ts";

const POLICIES = "digest";

/** A database that a test drives: one per session. */
interface TestSink {
  readonly pushed: string[];
  readonly durable: (endLsn: Lsn) => void;
  readonly fail: (failure: Error) => void;
}

/** An inbox that lets in who gives the sender's own incarnation; `log` is what happens to its node, in order. */
function startInbox({ compression = null }: { compression?: Compression | null } = {}) {
  const log: string[] = [];
  const sinks: TestSink[] = [];
  const inbox = new Inbox({
    clock: { read: () => ({ time: 100_000n, uncertaintyMs: 1 }) },
    clockOf: (sender, { offsetMs }) => void log.push(`${sender} is ${offsetMs} ms ahead`),
    recognise: ({ identity }) => {
      if (identity.incarnation === SENDER.incarnation) return Promise.resolve();
      return Promise.reject(new MmliteError("fenced", "Cannot replicate with a stranger"));
    },
    admit: () =>
      Promise.resolve({
        identity: RECEIVER,
        resumeLsn: toLsn(100n),
        copied: null,
        dialsBack: true,
        compression,
        policies: POLICIES,
        unsent: NOTHING_UNSENT,
        openSink: (durable) => {
          const pushed: string[] = [];
          const { promise: failed, reject: fail } = Promise.withResolvers<never>();
          failed.catch(() => {});
          const number = sinks.push({ pushed, durable, fail });
          log.push(`open ${number}`);
          return Promise.resolve({
            push: (bytes, start, end) => void pushed.push(Buffer.from(bytes).toString("utf8", start, end)),
            seen: (nodes) => void pushed.push(`seen ${nodes.map(({ node }) => node)}`),
            caughtUp: (committedBefore) => void pushed.push(`caught up to ${committedBefore}`),
            passed: (walLsn) => void pushed.push(`passed ${walLsn}`),
            fetched: () => Promise.resolve(),
            flush: () => {},
            failed,
            close: () => {
              log.push(`close ${number}`);
              return Promise.resolve();
            },
          });
        },
      }),
    askedAgain: (sender) => void log.push(`${sender} asks again`),
    calledBack: (sender) => void log.push(`${sender} calls back`),
    judge: (_, error) => Promise.resolve(error),
    observe: (sender, state) =>
      void log.push(`${sender} ${state.name}${"error" in state ? ` ${state.error.kind}` : ""}`),
  });
  return {
    inbox,
    log,
    sinks,
    /** Gives the inbox a channel whose other end is the test's. */
    connect() {
      const pair = memoryPair();
      return { sender: takeEnd(pair.dialling), over: inbox.accept(pair.accepting) };
    },
    /** Gives the inbox a channel that it opened to `fra`, whose other end is the test's. */
    open() {
      const pair = memoryPair();
      const stop = new AbortController();
      const opened = { sender: "fra", signal: stop.signal };
      const over = inbox.accept(pair.dialling, opened);
      return { sender: takeEnd(pair.accepting), over, stop: () => stop.abort() };
    },
    /** A sender that was let in. */
    async stream() {
      const connection = this.connect();
      await connection.sender.say(hello());
      await connection.sender.hear("welcome");
      return { ...connection, sink: sinks.at(-1)! };
    },
    [Symbol.asyncDispose]: () => within("the inbox to close", 5_000, inbox.close()),
  };
}

/** Fails unless the next that the sender hears is a refusal of this kind. */
async function isRefused(sender: TestEnd, kind: ErrorKind, message: RegExp): Promise<void> {
  await assert.rejects(sender.hear("welcome"), (error) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("what a sender pushes reaches the database verbatim, and what is durable is acked", async () => {
  await using run = startInbox();
  const { sender, over } = run.connect();
  await sender.say(hello());
  assert.deepEqual(await sender.hear("welcome"), welcome({ policies: POLICIES, binaryTypes: BINARY_TYPES }));
  const [sink] = run.sinks;
  await sender.say(dataFrame(Buffer.from("begin"), Buffer.from("commit")));
  await sender.say({ kind: "caught_up", committedBefore: 7n });
  await sender.say({ kind: "passed", walLsn: toLsn(8n) });
  await sender.say({ kind: "seen", nodes: [{ node: "nyc", position: toLsn(1n), timestamp: 2n }] });
  await eventually("all of it", () => sink.pushed.length === 5, { intervalMs: 2 });
  assert.deepEqual(sink.pushed, ["begin", "commit", "caught up to 7", "passed 8", "seen nyc"]);
  await sender.say({ kind: "try_again" });
  await sender.say({ kind: "call_back" });
  await eventually("the wishes", () => run.log.includes("fra calls back"), { intervalMs: 2 });
  sink.durable(toLsn(200n));
  assert.equal((await sender.hear("ack")).endLsn, 200n);
  await sender.channel.end();
  await within("the session to end", 5_000, over);
  assert.deepEqual(run.log, [
    "fra streaming",
    "open 1",
    "fra asks again",
    "fra calls back",
    "close 1",
    "fra disconnected",
  ]);
});

Deno.test("heartbeats exchange clocks once the handshake is done, and the first is answered at once", async () => {
  await using run = startInbox();
  const { sender } = await run.stream();
  const clock = { uncertainty: 0, echo: null };
  await sender.say({ kind: "heartbeat", sentAt: 90_000n, clock });
  const answer = await sender.hear("heartbeat");
  assert.deepEqual(answer.clock, { uncertainty: 1000, echo: { sentAt: 90_000n, heldFor: 0n } });
  const echo = { sentAt: 100_000n, heldFor: 0n };
  await sender.say({ kind: "heartbeat", sentAt: 90_000n, clock: { ...clock, echo } });
  await eventually("the clock", () => run.log.includes("fra is -10 ms ahead"), { intervalMs: 2 });
});

Deno.test("fragments reach the database as one message", async () => {
  await using run = startInbox();
  const { sender, sink } = await run.stream();
  const [first, second] = ["a".repeat(FRAGMENT_BYTES), "bc"];
  await sender.say({
    kind: "fragment_start",
    totalLength: first.length + second.length,
    bytes: Buffer.from(first),
  });
  await sender.say({ kind: "fragment", bytes: Buffer.from(second) });
  await eventually("the message", () => sink.pushed.length === 1, { intervalMs: 2 });
  assert(sink.pushed[0] === first + second);
});

for (const compression of COMPRESSIONS) {
  Deno.test(`what a sender compresses with ${compression} reaches the database as it was`, async () => {
    await using run = startInbox({ compression });
    const { sender, over } = run.connect();
    await sender.say(hello());
    assert.deepEqual(
      await sender.hear("welcome"),
      welcome({ compression, policies: POLICIES, binaryTypes: BINARY_TYPES }),
    );
    const [sink] = run.sinks;
    const writer = openFrameWriter((bytes) => sender.channel.write(bytes), compression);
    for (const text of ["begin", "commit"]) {
      await writer.write(encodeFrame(dataFrame(Buffer.from(text))));
      await eventually(`the ${text}`, () => sink.pushed.at(-1) === text, { intervalMs: 2 });
    }
    writer.close();
    await sender.channel.end();
    await within("the session to end", 5_000, over);
    assert.deepEqual(run.log, ["fra streaming", "open 1", "close 1", "fra disconnected"]);
  });

  Deno.test(`a sender that does not compress with ${compression} as it said is refused`, async () => {
    await using run = startInbox({ compression });
    const { sender, over } = await run.stream();
    await sender.say(dataFrame(Buffer.from("begin")));
    await isRefused(
      sender,
      "protocol",
      new RegExp(`^Peer refused: Cannot decompress what .* in ${compression}`),
    );
    await within("the session to end", 5_000, over);
    assert.deepEqual(run.log, ["fra streaming", "open 1", "close 1", "fra failed protocol"]);
  });
}

Deno.test("who does not begin with a hello is refused", async () => {
  await using run = startInbox();
  const { sender, over } = run.connect();
  await sender.say({ kind: "ack", endLsn: toLsn(1n) });
  await isRefused(sender, "protocol", /began with a ack frame/);
  await within("the session to end", 5_000, over);
  const silent = run.connect();
  await silent.sender.channel.end();
  await isRefused(silent.sender, "protocol", /sent no Hello/);
  const noise = run.connect();
  await noise.sender.channel.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
  await isRefused(noise.sender, "protocol", /Cannot read/);
  assert.deepEqual(run.log, []);
});

Deno.test("a sender of another protocol is refused", async () => {
  await using run = startInbox();
  const { sender } = run.connect();
  await sender.say(hello({ protocol: 99 }));
  await isRefused(sender, "refused", /speaks protocol 99, this node 4/);
});

const STRANGER: Partial<Hello> = { identity: { ...SENDER, incarnation: RECEIVER.incarnation } };

Deno.test("a sender that is not recognised is refused, and shown", async () => {
  await using run = startInbox();
  const { sender } = run.connect();
  await sender.say(hello(STRANGER));
  await isRefused(sender, "fenced", /stranger/);
  assert.deepEqual(run.log, ["fra failed fenced"]);
});

Deno.test("a stranger that gives a sender's name neither ends nor marks that sender's session", async () => {
  await using run = startInbox();
  const { sender, sink } = await run.stream();
  const stranger = run.connect();
  await stranger.sender.say(hello(STRANGER));
  await isRefused(stranger.sender, "fenced", /stranger/);
  await within("the stranger's session to end", 5_000, stranger.over);
  sink.durable(toLsn(200n));
  assert.equal((await sender.hear("ack")).endLsn, 200n);
  assert.deepEqual(run.log, ["fra streaming", "open 1"]);
});

Deno.test("a newer session ends the older, which has let go of the database before", async () => {
  await using run = startInbox();
  const older = await run.stream();
  const newer = await run.stream();
  await within("the older session to end", 5_000, older.over);
  await assert.rejects(older.sender.hear("ack"), { kind: "unreachable" });
  assert.deepEqual(run.log, [
    "fra streaming",
    "open 1",
    "close 1",
    "fra disconnected",
    "fra streaming",
    "open 2",
  ]);
  newer.sink.durable(toLsn(200n));
  assert.equal((await newer.sender.hear("ack")).endLsn, 200n);
});

Deno.test("a channel that this node opened waits for its sender, past heartbeats", async () => {
  await using run = startInbox();
  const { sender, over } = run.open();
  assert.deepEqual(run.log, ["fra waiting"]);
  for (let beat = 0; beat < 3; beat++) await sender.say({ kind: "heartbeat", sentAt: 1n });
  await sender.say(hello());
  await sender.hear("welcome");
  await sender.channel.end();
  await over;
  assert.deepEqual(run.log, ["fra waiting", "fra streaming", "open 1", "close 1", "fra disconnected"]);
});

Deno.test("only who opened a channel has to say hello within a time", async () => {
  const delays: (number | undefined)[] = [];
  const { setTimeout } = globalThis;
  globalThis.setTimeout = ((work: () => void, delay?: number) => {
    delays.push(delay);
    return setTimeout(work, delay);
  }) as typeof setTimeout;
  try {
    await using run = startInbox();
    run.open();
    assert(!delays.includes(HANDSHAKE_TIMEOUT_MS));
    run.connect();
    assert(delays.includes(HANDSHAKE_TIMEOUT_MS));
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});

Deno.test("a sender that refuses a channel, or is another, is shown with its error", async () => {
  await using run = startInbox();
  const refusing = run.open();
  await refusing.sender.say({ kind: "refusal", errorKind: "refused", message: "No", hint: "" });
  await within("the session to end", 5_000, refusing.over);
  const another = run.open();
  await another.sender.say(hello({ identity: { ...SENDER, node: "lon" } }));
  await isRefused(another.sender, "fenced", /"fra": the node at that address is called "lon"/);
  const ended = run.open();
  await ended.sender.channel.end();
  await within("the session to end", 5_000, ended.over);
  assert.deepEqual(run.log.filter((entry) => entry !== "fra waiting"), [
    "fra failed refused",
    "fra failed fenced",
    "fra failed protocol",
  ]);
});

Deno.test("a channel that this node opened ends when it is stopped, before and after the Hello", async () => {
  await using run = startInbox();
  const silent = run.open();
  silent.stop();
  await within("the session to end", 5_000, silent.over);
  const streaming = run.open();
  await streaming.sender.say(hello());
  await streaming.sender.hear("welcome");
  streaming.stop();
  await within("the session to end", 5_000, streaming.over);
  await within(
    "nothing to begin",
    5_000,
    run.inbox.accept(memoryPair().dialling, {
      sender: "fra",
      signal: AbortSignal.abort(),
    }),
  );
  assert(!run.log.some((entry) => entry.includes("failed")), run.log.join());
});

Deno.test("a transaction that cannot be applied is told to the sender, and shown", async () => {
  await using run = startInbox();
  const { sender, sink, over } = await run.stream();
  sink.fail(new MmliteError("apply_failed", "Cannot apply insert"));
  await isRefused(sender, "apply_failed", /Cannot apply insert/);
  await within("the session to end", 5_000, over);
  assert.deepEqual(run.log, ["fra streaming", "open 1", "close 1", "fra failed apply_failed"]);
});

Deno.test("frames that only receivers send, and an end within a message, are refused", async () => {
  await using run = startInbox();
  const talker = await run.stream();
  await talker.sender.say({ kind: "ack", endLsn: toLsn(1n) });
  await isRefused(talker.sender, "protocol", /a ack frame/);
  const cut = await run.stream();
  await cut.sender.channel.write(Uint8Array.of(0, 0));
  await cut.sender.channel.end();
  await isRefused(cut.sender, "protocol", /Cannot read/);
});

Deno.test("drop, interrupt and close each end a running session and wait for it", async () => {
  const run = startInbox();
  const dropped = await run.stream();
  await within("the drop", 5_000, run.inbox.drop("fra"));
  assert(run.log.includes("close 1"));
  await dropped.over;
  await run.inbox.drop("nobody");
  const interrupted = await run.stream();
  run.inbox.interrupt();
  await within("the interrupted session to end", 5_000, interrupted.over);
  await run.stream();
  await within("the inbox to close", 5_000, run.inbox.close());
  assert.deepEqual(run.log.filter((entry) => entry.startsWith("close")), ["close 1", "close 2", "close 3"]);
  assert.equal(run.log.at(-1), "fra disconnected");
});
