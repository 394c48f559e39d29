/**
 * Frames over a channel: all that arrive, and one expected within a time.
 */
import { isErrorKind, MmliteError } from "../errors.ts";
import type { Channel } from "./channel.ts";
import type { Frame, Refusal } from "./frame.ts";
import { FrameDecoder } from "./frame_decoder.ts";

/** The other side has this long for each step of the handshake, milliseconds. */
export const HANDSHAKE_TIMEOUT_MS = 15_000;

/**
 * The frames that arrive on a channel, in order. Ends when the other end ended between two frames; throws
 * `protocol` for bytes that are not frames or an end inside one, `unreachable` when the stream broke.
 */
export async function* readFrames(channel: Channel): AsyncGenerator<Frame, void, undefined> {
  const decoder = new FrameDecoder();
  for await (const chunk of channel.incoming) yield* decoder.push(chunk);
  decoder.finish();
}

/**
 * The next frame, which must be of `kind` and arrive within `timeoutMs`; heartbeats before it are passed over.
 *
 * A refusal instead is thrown as the error that it carries, another frame or the end as `protocol`,
 * silence as `unreachable`, an abort of `signal` as `aborted`. After a throw `frames` cannot be read on.
 */
export async function expectFrame<K extends Frame["kind"]>(
  frames: AsyncIterator<Frame, void>,
  kind: K,
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<Extract<Frame, { kind: K }>> {
  const { timeoutMs = HANDSHAKE_TIMEOUT_MS, signal } = options;
  const deadline = startDeadline(kind, timeoutMs, signal);
  try {
    while (true) {
      const next = await Promise.race([frames.next(), deadline.expired]);
      if (next.done) {
        throw new MmliteError("protocol", `Cannot shake hands: the stream ended before a ${kind}`);
      }
      const frame = next.value;
      if (frame.kind === kind) return frame as Extract<Frame, { kind: K }>;
      if (frame.kind === "refusal") throw refusalError(frame);
      if (frame.kind !== "heartbeat") {
        throw new MmliteError(
          "protocol",
          `Cannot shake hands: expected a ${kind}, read a ${frame.kind} frame`,
        );
      }
    }
  } finally {
    deadline.clear();
  }
}

/** The error that a refusal carries: of the sender's kind where this version knows it, else `refused`. */
export function refusalError(frame: Refusal): MmliteError {
  const kind = isErrorKind(frame.errorKind) ? frame.errorKind : "refused";
  return new MmliteError(kind, `Peer refused: ${frame.message}`, { hint: frame.hint, cause: frame });
}

/** Whether an error came in a refusal: the other end has ended, and needs no answer. */
export function isRefusal({ cause }: MmliteError): boolean {
  return (cause as Partial<Refusal> | undefined)?.kind === "refusal";
}

interface Deadline {
  readonly expired: Promise<never>;
  clear(): void;
}

function startDeadline(kind: string, timeoutMs: number, signal?: AbortSignal): Deadline {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  // Nobody may be waiting when it expires.
  expired.catch(() => {});
  const abort = () =>
    reject(new MmliteError("aborted", `Cannot shake hands: stopped while waiting for a ${kind}`));
  const timer = setTimeout(() => {
    reject(new MmliteError("unreachable", `Cannot shake hands: no ${kind} within ${timeoutMs} ms`));
  }, timeoutMs);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  return {
    expired,
    clear() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    },
  };
}
