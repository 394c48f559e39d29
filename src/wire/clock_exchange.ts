/**
 * How far the other end's clock is ahead of ours, from heartbeats that go both ways, as NTP does it.
 *
 * Each heartbeat says when it was sent, and of the last one that came when that was sent and how long ago it came. So
 * the end that hears one knows how long the two were under way together, and the offset within half of that: exact
 * where both took as long, off by the whole half where one took no time. Waiting behind data or for a reader counts as
 * being under way; the narrowest of the exchanges tells most (`clock_offset.ts`).
 */
import type { OffsetInterval } from "../clock_offset.ts";
import type { Heartbeat, HeartbeatClock } from "./frame.ts";

/** A clock that is known within a bound. */
export interface SenderClock {
  /** The time, microseconds since 1970-01-01 UTC, and how far it may be off, milliseconds. */
  read(): { readonly time: bigint; readonly uncertaintyMs: number };
}

/** This process's own clock. */
export const PROCESS_CLOCK: SenderClock = {
  read: () => ({ time: BigInt(Date.now()) * 1000n, uncertaintyMs: 1 }),
};

/** The greatest uncertainty that a heartbeat can say, microseconds: 71 minutes. */
const MAX_UNCERTAINTY = 0xffff_ffff;

/** One end of the exchange over one channel. */
export class ClockExchange {
  readonly #clock: SenderClock;
  #heard: { readonly sentAt: bigint; readonly at: bigint } | undefined;

  constructor(clock: SenderClock) {
    this.#clock = clock;
  }

  /** The heartbeat to send now. */
  beat(): Heartbeat & { clock: HeartbeatClock } {
    const { time, uncertaintyMs } = this.#clock.read();
    const heard = this.#heard;
    const echo = heard && { sentAt: heard.sentAt, heldFor: time > heard.at ? time - heard.at : 0n };
    const uncertainty = Math.min(MAX_UNCERTAINTY, Math.ceil(uncertaintyMs * 1000));
    return { kind: "heartbeat", sentAt: time, clock: { uncertainty, echo: echo ?? null } };
  }

  /** Takes a heartbeat that came now; what it tells of the other end's clock minus ours, if anything. */
  hear({ sentAt, clock }: Heartbeat): OffsetInterval | undefined {
    if (clock === undefined) return undefined;
    const { time, uncertaintyMs } = this.#clock.read();
    this.#heard = { sentAt, at: time };
    if (clock.echo === null) return undefined;
    const there = sentAt - clock.echo.heldFor - clock.echo.sentAt;
    const back = time - sentAt;
    // Negative only where a clock was set meanwhile, which the next exchange tells better.
    if (there + back < 0n) return undefined;
    return {
      offsetMs: Number(there - back) / 2_000,
      uncertaintyMs: Number(there + back) / 2_000 + clock.uncertainty / 1000 + uncertaintyMs,
    };
  }
}
