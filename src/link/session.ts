/**
 * One attempt of a link: handshake, then the slot's transactions out and acks in, until something breaks.
 *
 * A straight line that knows nothing of retries. The replication connection and the stream to the peer live and
 * die together, so there is no half-connected state.
 */
import { SeenCursor } from "../applied_history.ts";
import { delay } from "../backoff.ts";
import { beginAnew, MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { decodeBegin, MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import type { Source } from "../pgoutput/source.ts";
import type { Channel } from "../wire/channel.ts";
import { encodeFrame } from "../wire/codec.ts";
import { type FrameWriter, openFrameWriter } from "../wire/compressor.ts";
import { type Frame, type Hello, PROTOCOL_VERSION, type Welcome } from "../wire/frame.ts";
import { BATCH_BYTES, FrameBatch } from "../wire/frame_batch.ts";
import { expectFrame, readFrames, refusalError } from "../wire/frame_stream.ts";
import { HEARTBEAT_INTERVAL_MS, keepAlive, type Liveness } from "../wire/liveness.ts";
import { AckKeeper } from "./ack_keeper.ts";
import { Answers } from "./answers.ts";
import { PassedTeller } from "./passed_teller.ts";
import type { SessionObserver, SessionPorts, WalClock } from "./ports.ts";

/** Runs until the session breaks, and throws why; returns only when `signal` aborts. */
export async function runSession(
  ports: SessionPorts,
  observer: SessionObserver,
  signal: AbortSignal,
): Promise<void> {
  await ports.prepare();
  const channel = await ports.connect(signal);
  const breakOff = () => channel.destroy();
  signal.addEventListener("abort", breakOff, { once: true });
  try {
    const frames = readFrames(channel);
    // Not before there is a channel: what it says of positions would be old by then.
    const hello = await ports.hello(channel.remote);
    await channel.write(encodeFrame(hello));
    const welcome = await expectFrame(frames, "welcome", { signal });
    requireProtocol(welcome, channel);
    requireOffered(hello, welcome, channel);
    await begin({ ports, observer, channel, frames, hello, welcome, signal });
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  } finally {
    signal.removeEventListener("abort", breakOff);
    channel.destroy();
  }
}

interface Begun {
  readonly ports: SessionPorts;
  readonly observer: SessionObserver;
  readonly channel: Channel;
  readonly frames: AsyncGenerator<Frame>;
  readonly hello: Hello;
  readonly welcome: Welcome;
  readonly signal: AbortSignal;
}

/** What follows the handshake; nothing is written between the Hello and this, as it may have to be compressed. */
async function begin({ hello, welcome, ...context }: Begun): Promise<void> {
  const { ports, observer, channel } = context;
  const { resumeLsn, compression } = welcome;
  const send = (bytes: Uint8Array) => {
    observer.wrote(bytes.length);
    return channel.write(bytes);
  };
  const writer = openFrameWriter(send, compression);
  const liveness = keepAlive(channel, { writer, clock: ports.clock });
  // Nobody reads until the slot is open, which may take long; silence is not the other end's then.
  liveness.listening(false);
  try {
    await requireSamePast(hello, welcome, ports);
    await ports.recognise(welcome, channel.peer);
    observer.started({ resumeLsn, walLsn: hello.walLsn, compression });
    liveness.exchangeClocks({ first: true });
    const positions = { sentLsn: resumeLsn, passedLsn: resumeLsn, mark: undefined };
    await stream({ ...context, welcome, writer, liveness, ...positions });
  } finally {
    liveness.stop();
    writer.close();
  }
}

interface Stream extends Omit<Begun, "hello"> {
  readonly writer: FrameWriter;
  readonly liveness: Liveness;
  /** End of the last transaction written to the channel; an ack beyond it is a lie. */
  sentLsn: Lsn;
  /** Everything that ends up to here in our WAL has been written to the channel or dropped. */
  passedLsn: Lsn;
  /** A moment that the pump has not passed yet. */
  mark: WalClock | undefined;
}

/** The first of pump, acks and what goes beside them to fail ends all. */
async function stream(session: Stream): Promise<void> {
  const { ports, observer, channel, signal } = session;
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  const source = await ports.openSource(session.sentLsn, session.welcome, ended);
  const acks = new AckKeeper({
    store: ports.storeAck,
    confirm: (endLsn) => {
      source.confirm(endLsn);
      observer.acked(endLsn);
    },
  });
  const passed = new PassedTeller((walLsn) => session.writer.write(encodeFrame({ kind: "passed", walLsn })));
  const answers = new Answers({ readRow: ports.readRow, write: (frame) => session.writer.write(frame) });
  try {
    await Promise.race([
      pump(session, source, passed),
      passed.run(ended),
      readAcks(session, acks, answers),
      answers.failed,
      acks.run(ended),
      setMarks(session, ended),
      passOn(session, { wish: ports.asksAgain, kind: "try_again", signal: ended }),
      passOn(session, { wish: ports.callsBack, kind: "call_back", signal: ended }),
    ]);
  } finally {
    stop.abort();
    answers.close();
    channel.destroy();
    await source.close();
  }
}

async function pump(session: Stream, source: Source, passed: PassedTeller): Promise<void> {
  const { writer, observer, ports: { history } } = session;
  const batch = new FrameBatch();
  const seen = new SeenCursor(history);
  for await (const outgoing of source.batches()) {
    const { messages, endLsn } = outgoing;
    if (endLsn !== null) session.sentLsn = endLsn;
    // Before it is sent: what comes back because of it is applied later than this.
    history.reached(outgoing.walEnd);
    for (let index = 0; index < messages.length; index++) {
      const [bytes, start, end] = [messages.bytes(index), messages.start(index), messages.end(index)];
      if (messageType(bytes, start, end) === MESSAGE_TYPE.begin) {
        const nodes = seen.next(decodeBegin(bytes, start, end).commitLsn);
        if (nodes !== undefined) batch.addFrame(encodeFrame({ kind: "seen", nodes }));
      }
      batch.add(bytes, start, end);
      if (batch.byteLength >= BATCH_BYTES) await writeAll(writer, batch);
    }
    if (batch.byteLength > 0) await writeAll(writer, batch);
    session.passedLsn = outgoing.walEnd;
    passed.offer(outgoing.walEnd > session.sentLsn ? outgoing.walEnd : undefined);
    await passMark(session);
    observer.sent(outgoing);
  }
}

/** Notes a moment at an interval; the next one once it has been passed. */
async function setMarks(session: Stream, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    session.mark ??= await session.ports.readClock();
    // An idle slot yields nothing more that would pass it.
    await passMark(session);
    await delay(HEARTBEAT_INTERVAL_MS, signal);
  }
}

/** Tells the receiver when all that was committed before a moment has been pushed. */
async function passMark(session: Stream): Promise<void> {
  const { mark, passedLsn, writer } = session;
  if (mark === undefined || passedLsn < mark.walLsn) return;
  session.mark = undefined;
  await writer.write(encodeFrame({ kind: "caught_up", committedBefore: mark.timestamp }));
}

/** Passes on what is wished of the peer. */
async function passOn(
  { writer }: Stream,
  { wish, kind, signal }: {
    readonly wish: (signal: AbortSignal) => Promise<void>;
    readonly kind: "try_again" | "call_back";
    readonly signal: AbortSignal;
  },
): Promise<void> {
  for (;;) {
    await wish(signal);
    if (signal.aborted) return;
    await writer.write(encodeFrame({ kind }));
  }
}

async function writeAll(writer: FrameWriter, batch: FrameBatch): Promise<void> {
  for (const frame of batch.drain()) await writer.write(frame);
}

async function readAcks(session: Stream, acks: AckKeeper, answers: Answers): Promise<void> {
  const { frames, liveness, channel } = session;
  liveness.listening(true);
  for await (const frame of frames) {
    liveness.heard();
    switch (frame.kind) {
      case "ack":
        requireSent(session, frame.endLsn);
        acks.offer(frame.endLsn);
        break;
      case "want_row":
        answers.offer(frame);
        break;
      case "heartbeat": {
        const offset = liveness.heardBeat(frame);
        if (offset !== undefined) session.observer.clock(offset);
        break;
      }
      case "refusal":
        throw refusalError(frame);
      default:
        throw new MmliteError(
          "protocol",
          `Cannot go on with ${channel.remote}: it sent a ${frame.kind} frame`,
        );
    }
  }
  throw new MmliteError("unreachable", `Cannot go on with ${channel.remote}: it ended the stream`);
}

function requireSent({ sentLsn, channel }: Stream, endLsn: Lsn): void {
  if (endLsn <= sentLsn) return;
  throw new MmliteError(
    "protocol",
    `Cannot go on with ${channel.remote}: it acked ${formatLsn(endLsn)}, and ${formatLsn(sentLsn)} was sent`,
  );
}

function requireProtocol(welcome: Welcome, channel: Channel): void {
  if (welcome.protocol === PROTOCOL_VERSION) return;
  throw new MmliteError(
    "refused",
    `Cannot begin with ${channel.remote}: it speaks protocol ${welcome.protocol}, this node ${PROTOCOL_VERSION}`,
    { hint: "Run the same version of mmlite on both nodes" },
  );
}

function requireOffered(hello: Hello, { compression }: Welcome, channel: Channel): void {
  if (compression === null || hello.compression.includes(compression)) return;
  throw new MmliteError(
    "protocol",
    `Cannot begin with ${channel.remote}: it wants ${compression}, which was not offered`,
  );
}

/**
 * The receiver must stand between what it acked and what our WAL holds; anything else means that one of the two
 * databases was restored to an earlier time.
 */
async function requireSamePast(
  hello: Hello,
  welcome: Welcome,
  { readClock }: Pick<SessionPorts, "readClock">,
): Promise<void> {
  const floor = hello.ackedLsn ?? hello.slotLsn;
  if (welcome.resumeLsn < floor) {
    throw new MmliteError(
      "fenced",
      `Cannot send to peer "${hello.receiver}": it stands at ${formatLsn(welcome.resumeLsn)}, ` +
        (hello.ackedLsn === null
          ? `and the slot for it begins at ${formatLsn(floor)}`
          : `behind its own ack ${formatLsn(floor)}: its database was restored or rolled back`),
      { hint: beginAnew(hello.identity.node, hello.receiver) },
    );
  }
  // A receiver that was copying rows may have had since then, from another node, what is newer than the Hello.
  if (welcome.resumeLsn > hello.walLsn && welcome.resumeLsn > (await readClock()).walLsn) {
    throw new MmliteError(
      "fenced",
      `Cannot send to peer "${hello.receiver}": it holds transactions up to ${
        formatLsn(welcome.resumeLsn)
      }, ` +
        `and this server's WAL ends at ${formatLsn(hello.walLsn)}: this database was restored or rolled back`,
      { hint: beginAnew(hello.identity.node, hello.receiver) },
    );
  }
}
