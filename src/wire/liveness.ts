/**
 * Heartbeats and the watch over the other end's: silence means that the other side is gone, RST or not. Once the
 * handshake is done they tell how far the two clocks are apart as well.
 */
import type { OffsetInterval } from "../clock_offset.ts";
import { MmliteError } from "../errors.ts";
import type { Channel } from "./channel.ts";
import { ClockExchange, PROCESS_CLOCK, type SenderClock } from "./clock_exchange.ts";
import { encodeFrame } from "./codec.ts";
import type { FrameWriter } from "./compressor.ts";
import type { Heartbeat } from "./frame.ts";

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
  /** The handshake is done, and the heartbeats exchange clocks from now on; `first` sends one at once. */
  exchangeClocks(options: { first: boolean }): void;
  /** Takes a heartbeat of the other end; what it tells of that end's clock minus ours, if anything. */
  heardBeat(beat: Heartbeat): OffsetInterval | undefined;
  /** Not listening for a while (`false`), so that silence means nothing; listening again (`true`). */
  listening(on: boolean): void;
  stop(): void;
}

interface KeepAliveOptions {
  /** Where heartbeats are written; the channel itself unless given. */
  readonly writer?: Pick<FrameWriter, "write">;
  /** What heartbeats say the time by. */
  readonly clock?: SenderClock;
}

/** Starts sending heartbeats and destroys the channel when the other end falls silent. */
export function keepAlive(
  channel: Channel,
  { writer = channel, clock = PROCESS_CLOCK }: KeepAliveOptions = {},
): Liveness {
  const exchange = new ClockExchange(clock);
  let exchanging = false;
  let heardAt = performance.now();
  let isListening = true;
  let sending = false;
  const beat = async () => {
    if (sending) return;
    sending = true;
    try {
      const { clock, ...bare } = exchange.beat();
      await writer.write(encodeFrame(exchanging ? { ...bare, clock } : bare));
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
    exchangeClocks: ({ first }) => {
      exchanging = true;
      if (first) void beat();
    },
    heardBeat: (frame) => {
      const offset = exchange.hear(frame);
      // Who begins the exchange knows at once then, and not only after the next heartbeat.
      if (exchanging && frame.clock?.echo === null) void beat();
      return offset;
    },
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
