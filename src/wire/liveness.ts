/**
 * Heartbeats and the watch over the other end's: silence means that the other side is gone, RST or not.
 */
import { MmliteError } from "../errors.ts";
import type { Channel } from "./channel.ts";
import { encodeFrame } from "./codec.ts";

/** Each side sends a heartbeat this often, milliseconds. */
export const HEARTBEAT_INTERVAL_MS = 10_000;
/** A side that waits for the other and has heard nothing for this long breaks off: three heartbeats missed. */
export const SILENCE_LIMIT_MS = 30_000;
/** How often silence is looked at, milliseconds. */
const WATCH_INTERVAL_MS = 5_000;

/** The running heartbeat of one end of a channel. */
export interface Liveness {
  /** Something arrived. */
  heard(): void;
  /** Not listening for a while (`false`), so that silence means nothing; listening again (`true`). */
  listening(on: boolean): void;
  stop(): void;
}

/** Starts sending heartbeats on a channel and destroys it when the other end falls silent. */
export function keepAlive(channel: Channel): Liveness {
  let heardAt = performance.now();
  let isListening = true;
  let sending = false;
  const beat = async () => {
    if (sending) return;
    sending = true;
    try {
      await channel.write(encodeFrame({ kind: "heartbeat", sentAt: BigInt(Date.now()) * 1000n }));
    } catch {
      // The reader of the channel meets the same broken stream and reports it.
    } finally {
      sending = false;
    }
  };
  const watch = () => {
    if (!isListening || performance.now() - heardAt < SILENCE_LIMIT_MS) return;
    channel.destroy(
      new MmliteError(
        "unreachable",
        `Cannot hear ${channel.remote}: silent for ${SILENCE_LIMIT_MS / 1000} s`,
        { hint: "Check the network between the two hosts, and that the other mmlite is not stopped" },
      ),
    );
  };
  const beatTimer = setInterval(() => void beat(), HEARTBEAT_INTERVAL_MS);
  const watchTimer = setInterval(watch, WATCH_INTERVAL_MS);
  return {
    heard: () => void (heardAt = performance.now()),
    listening: (on) => {
      isListening = on;
      heardAt = performance.now();
    },
    stop: () => {
      clearInterval(beatTimer);
      clearInterval(watchTimer);
    },
  };
}
