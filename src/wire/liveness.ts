/**
 * Heartbeats and the watch over the other end's: silence means that the other side is gone, RST or not.
 */
import { MmliteError } from "../errors.ts";
import type { Channel } from "./channel.ts";
import { encodeFrame } from "./codec.ts";
import type { FrameWriter } from "./compressor.ts";

/** Each side sends a heartbeat this often, milliseconds. */
export const HEARTBEAT_INTERVAL_MS = 8_000;
/**
 * A side that waits for the other and has heard nothing for this long breaks off, milliseconds: three heartbeats
 * missed, one of them by a second, and noticed well within 30 s of the other's last sign of life.
 */
export const SILENCE_LIMIT_MS = 25_000;

/** The running heartbeat of one end of a channel. */
export interface Liveness {
  /** Something arrived. */
  heard(): void;
  /** Not listening for a while (`false`), so that silence means nothing; listening again (`true`). */
  listening(on: boolean): void;
  stop(): void;
}

/** Starts sending heartbeats through `writer` and destroys the channel when the other end falls silent. */
export function keepAlive(channel: Channel, writer: Pick<FrameWriter, "write"> = channel): Liveness {
  let heardAt = performance.now();
  let isListening = true;
  let sending = false;
  const beat = async () => {
    if (sending) return;
    sending = true;
    try {
      await writer.write(encodeFrame({ kind: "heartbeat", sentAt: BigInt(Date.now()) * 1000n }));
    } catch {
      // The reader of the channel meets the same broken stream and reports it.
    } finally {
      sending = false;
    }
  };
  let watchTimer: ReturnType<typeof setTimeout>;
  const watch = () => {
    const left = isListening ? heardAt + SILENCE_LIMIT_MS - performance.now() : SILENCE_LIMIT_MS;
    if (left > 0) return void (watchTimer = setTimeout(watch, left));
    channel.destroy(
      new MmliteError(
        "unreachable",
        `Cannot hear ${channel.remote}: silent for ${SILENCE_LIMIT_MS / 1000} s`,
        { hint: "Check the network between the two hosts, and that the other mmlite is not stopped" },
      ),
    );
  };
  const beatTimer = setInterval(() => void beat(), HEARTBEAT_INTERVAL_MS);
  watch();
  return {
    heard: () => void (heardAt = performance.now()),
    listening: (on) => {
      isListening = on;
      heardAt = performance.now();
    },
    stop: () => {
      clearInterval(beatTimer);
      clearTimeout(watchTimer);
    },
  };
}
