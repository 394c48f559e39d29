/**
 * One receiving session: admit the sender, apply what it pushes, ack what is durable, until something ends it.
 *
 * Whatever ends it on this side is told to the sender in a Refusal, so that both operators read the same error.
 */
import { setImmediate as turn } from "node:timers/promises";
import { MmliteError, toMmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";
import { BINARY_TYPES } from "../pgoutput/binary_text.ts";
import type { Channel } from "../wire/channel.ts";
import { encodeFrame } from "../wire/codec.ts";
import { type ChunkReader, openChunkReader } from "../wire/decompressor.ts";
import { type Frame, type Heartbeat, type Hello, PROTOCOL_VERSION } from "../wire/frame.ts";
import { FrameDecoder, MessageAssembler } from "../wire/frame_decoder.ts";
import { HANDSHAKE_TIMEOUT_MS, isRefusal, refusalError } from "../wire/frame_stream.ts";
import { MessageCursor } from "../wire/message_cursor.ts";
import { keepAlive, type Liveness } from "../wire/liveness.ts";
import { Questions } from "./questions.ts";
import type { Admission, InboxPorts, RunningSession, TransactionSink } from "./ports.ts";

/** Receives on one channel until the sender ends it, something fails, or `signal` aborts. Never throws. */
export async function receive(
  channel: Channel,
  { signal, ...context }: Pick<Session, "ports" | "openedTo" | "register" | "refused" | "signal">,
): Promise<void> {
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  if (ended.aborted) return channel.destroy();
  const breakOff = () => channel.destroy();
  ended.addEventListener("abort", breakOff, { once: true });
  const liveness = keepAlive(channel, { clock: context.ports.clock });
  try {
    await session({ ...context, channel, liveness, signal: ended, abort: () => stop.abort() });
    await channel.end();
  } catch (thrown) {
    const error = toMmliteError(thrown);
    if (!ended.aborted && !isRefusal(error)) await refuse(channel, error);
  } finally {
    ended.removeEventListener("abort", breakOff);
    liveness.stop();
    channel.destroy();
  }
}

interface Session {
  readonly channel: Channel;
  readonly ports: InboxPorts;
  /** The sender that this node opened the channel to; undefined if the sender opened it. */
  readonly openedTo: string | undefined;
  /** Ends the sender's older session, if there is one, and resolves when that is over. */
  readonly register: (sender: string, session: RunningSession) => Promise<void>;
  /** A sender is not let in. */
  readonly refused: (sender: string, error: MmliteError) => void;
  readonly liveness: Liveness;
  readonly signal: AbortSignal;
  readonly abort: () => void;
}

async function session(context: Session): Promise<void> {
  const { channel, ports, register } = context;
  const chunks = channel.incoming[Symbol.asyncIterator]();
  const decoder = new FrameDecoder();
  const { hello, rest } = await greeted(context, chunks, decoder);
  // Nobody reads until the sender is let in, which may take long; silence is not its then.
  context.liveness.listening(false);
  // Before the older session is ended: a stranger that gives a known name must not end it.
  await ports.recognise(hello, channel.peer).catch((thrown) => {
    context.refused(hello.identity.node, toMmliteError(thrown));
    throw thrown;
  });
  const over = Promise.withResolvers<void>();
  try {
    await register(hello.identity.node, { abort: context.abort, ended: over.promise });
    await admitted({ ...context, chunks, decoder, rest }, hello);
  } finally {
    over.resolve();
  }
}

/** Reads the Hello; a sender that this node dialled for it is told of where there is none, or another's. */
async function greeted(
  context: Session,
  chunks: AsyncIterator<Uint8Array>,
  decoder: FrameDecoder,
): Promise<{ hello: Hello; rest: Frame[] }> {
  const { openedTo, refused, signal } = context;
  if (openedTo === undefined) return await readHello(context, chunks, decoder);
  try {
    const greeting = await readHello(context, chunks, decoder);
    requireOpenedTo(openedTo, greeting.hello);
    return greeting;
  } catch (thrown) {
    if (!signal.aborted) refused(openedTo, toMmliteError(thrown));
    throw thrown;
  }
}

function requireOpenedTo(peer: string, { identity: { node } }: Hello): void {
  if (node === peer) return;
  throw new MmliteError(
    "fenced",
    `Cannot receive from peer "${peer}": the node at that address is called "${node}"`,
    {
      hint: `Add it as "${node}", or correct the address`,
    },
  );
}

async function admitted(context: Omit<Receiving, "admission" | "sender">, hello: Hello): Promise<void> {
  const { ports, signal } = context;
  const sender = hello.identity.node;
  try {
    const admission = await ports.admit(hello);
    signal.throwIfAborted();
    ports.observe(sender, { name: "streaming" });
    await receiveFrom({ ...context, admission, sender });
    ports.observe(sender, { name: "disconnected" });
  } catch (thrown) {
    if (signal.aborted) {
      ports.observe(sender, { name: "disconnected" });
      throw thrown;
    }
    const error = await ports.judge(sender, toMmliteError(thrown));
    ports.observe(sender, { name: "failed", error });
    throw error;
  }
}

interface Receiving extends Session {
  readonly chunks: AsyncIterator<Uint8Array>;
  readonly decoder: FrameDecoder;
  /** Frames that came in one chunk with the Hello. */
  readonly rest: readonly Frame[];
  readonly admission: Admission;
  readonly sender: string;
}

async function receiveFrom(context: Receiving): Promise<void> {
  const { channel, admission, sender, signal } = context;
  const { remote } = channel;
  const acks = new AckWriter(channel);
  const sink = await admission.openSink((endLsn) => acks.offer(endLsn), signal);
  const questions = new Questions({
    unsent: admission.unsent,
    sink,
    sender,
    write: (frame) => channel.write(frame),
  });
  const over = new AbortController();
  const chunks = openChunkReader(context.chunks, { compression: admission.compression, remote });
  try {
    await channel.write(encodeFrame({
      kind: "welcome",
      protocol: PROTOCOL_VERSION,
      identity: admission.identity,
      resumeLsn: admission.resumeLsn,
      dialsBack: admission.dialsBack,
      compression: admission.compression,
      policies: admission.policies,
      binaryTypes: BINARY_TYPES,
      copied: admission.copied,
    }));
    context.liveness.exchangeClocks({ first: false });
    const wished = (what: "try_again" | "call_back") => {
      if (what === "try_again") context.ports.askedAgain(sender);
      else context.ports.calledBack(sender);
    };
    await Promise.race([
      pushAll({ ...context, chunks, wished, questions }, sink),
      sink.failed,
      questions.run(AbortSignal.any([signal, over.signal])).then(() => new Promise<never>(() => {})),
    ]);
  } finally {
    over.abort();
    chunks.close();
    await sink.close();
  }
}

interface Pushing extends Omit<Receiving, "chunks"> {
  readonly chunks: ChunkReader;
  /** The sender wishes something of this node. */
  readonly wished: (what: "try_again" | "call_back") => void;
  readonly questions: Questions;
}

async function pushAll(
  { chunks, decoder, rest, liveness, ports, sender, wished, questions }: Pushing,
  sink: TransactionSink,
): Promise<void> {
  const heard = (beat: Heartbeat) => {
    const offset = liveness.heardBeat(beat);
    if (offset !== undefined) ports.clockOf(sender, offset);
  };
  const to = { assembler: new MessageAssembler(), sink, heard, wished, questions };
  await pushFrames(rest, to);
  sink.flush();
  for (;;) {
    liveness.listening(true);
    const { value: chunk, done } = await chunks.next();
    // A sender cannot get a heartbeat through while we do not read, so its silence means nothing then.
    liveness.listening(false);
    if (done) return decoder.finish();
    await pushFrames(decoder.push(chunk), to);
    sink.flush();
    // A chunk that is here already comes without the event loop turning, and what was written to PostgreSQL would
    // stay: with a chunk a turn it goes out while the next is taken.
    await turn();
  }
}

/** Pushes the messages of some frames, and waits only where the sink wants it. */
async function pushFrames(
  frames: readonly Frame[],
  { assembler, sink, heard, wished, questions }: {
    readonly assembler: MessageAssembler;
    readonly sink: TransactionSink;
    readonly heard: (beat: Heartbeat) => void;
    readonly wished: Pushing["wished"];
    readonly questions: Questions;
  },
): Promise<void> {
  for (const frame of frames) {
    switch (frame.kind) {
      case "data": {
        assembler.assertWhole(frame.kind);
        const { payload } = frame;
        for (const message = new MessageCursor(payload); message.next();) {
          const room = sink.push(payload, message.start, message.end);
          if (room !== undefined) await room;
        }
        break;
      }
      case "fragment_start":
      case "fragment": {
        const message = assembler.push(frame);
        if (message !== null) await sink.push(message);
        break;
      }
      case "caught_up":
        sink.caughtUp(frame.committedBefore);
        break;
      case "passed":
        sink.passed(frame.walLsn);
        break;
      case "try_again":
      case "call_back":
        wished(frame.kind);
        break;
      case "seen": {
        assembler.assertWhole(frame.kind);
        const room = sink.seen(frame.nodes);
        if (room !== undefined) await room;
        break;
      }
      case "row":
        await questions.take(frame);
        break;
      case "heartbeat":
        heard(frame);
        break;
      case "refusal":
        throw new MmliteError("refused", `Sender stopped: ${frame.message}`, {
          hint: frame.hint,
          cause: frame,
        });
      default:
        throw new MmliteError("protocol", `Cannot receive a ${frame.kind} frame from a sender`);
    }
  }
}

/** Who opened the channel says Hello at once; another when it has something to push, and beats until then. */
async function readHello(
  { channel, openedTo, liveness }: Session,
  chunks: AsyncIterator<Uint8Array>,
  decoder: FrameDecoder,
): Promise<{ hello: Hello; rest: Frame[] }> {
  const silent = new MmliteError(
    "protocol",
    `Cannot receive from ${channel.remote}: no Hello within ${HANDSHAKE_TIMEOUT_MS / 1000} s`,
  );
  const late = openedTo === undefined
    ? setTimeout(() => channel.destroy(silent), HANDSHAKE_TIMEOUT_MS)
    : undefined;
  try {
    for (;;) {
      const { value: chunk, done } = await chunks.next();
      liveness.heard();
      if (done) throw new MmliteError("protocol", `Cannot receive from ${channel.remote}: it sent no Hello`);
      const frames = [...decoder.push(chunk)];
      const first = frames.findIndex((frame) => frame.kind !== "heartbeat");
      if (first < 0) continue;
      return { hello: requireHello(frames[first]!, channel), rest: frames.slice(first + 1) };
    }
  } finally {
    clearTimeout(late);
  }
}

function requireHello(frame: Frame, channel: Channel): Hello {
  if (frame.kind === "refusal") throw refusalError(frame);
  if (frame.kind !== "hello") {
    throw new MmliteError(
      "protocol",
      `Cannot receive from ${channel.remote}: it began with a ${frame.kind} frame`,
    );
  }
  if (frame.protocol !== PROTOCOL_VERSION) {
    throw new MmliteError(
      "refused",
      `Cannot receive from node "${frame.identity.node}": it speaks protocol ${frame.protocol}, ` +
        `this node ${PROTOCOL_VERSION}`,
      { hint: "Run the same version of mmlite on both nodes" },
    );
  }
  return frame;
}

/** Tells the sender why, and ends; a stream that is broken already tells nothing. */
async function refuse(channel: Channel, error: MmliteError): Promise<void> {
  try {
    await channel.write(encodeFrame({
      kind: "refusal",
      errorKind: error.kind,
      message: error.message,
      hint: error.hint,
    }));
    await channel.end();
  } catch {
    // The stream is what failed: the sender notices by itself.
  }
}

/** Writes the latest ack; those that come while one is being written are passed over but for the last. */
class AckWriter {
  readonly #channel: Channel;
  #offered: Lsn | undefined;
  #writing = false;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  offer(endLsn: Lsn): void {
    this.#offered = endLsn;
    if (!this.#writing) void this.#write();
  }

  async #write(): Promise<void> {
    this.#writing = true;
    try {
      while (this.#offered !== undefined) {
        const endLsn = this.#offered;
        this.#offered = undefined;
        await this.#channel.write(encodeFrame({ kind: "ack", endLsn }));
      }
    } catch {
      // The reader of the channel meets the same broken stream and reports it.
    } finally {
      this.#writing = false;
    }
  }
}
