/**
 * Holds what is taken to so many bytes in a second, on all channels together. What is not taken is not sent for long:
 * flow control holds the other node back.
 */
import { delay } from "../backoff.ts";

/** A function that resolves when as many bytes may be taken, or `signal` aborts; at once without a rate. */
export function paceOf(
  bytesPerSecond: number | undefined,
  signal: AbortSignal,
): (bytes: number) => Promise<void> {
  if (bytesPerSecond === undefined) return () => Promise.resolve();
  let freeAt = 0;
  return async (bytes) => {
    const now = performance.now();
    const beginsAt = Math.max(freeAt, now);
    freeAt = beginsAt + bytes / bytesPerSecond * 1000;
    if (beginsAt > now) await delay(beginsAt - now, signal);
  };
}
