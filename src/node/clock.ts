/**
 * PostgreSQL's timestamps against this host's clock.
 */

/** Milliseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01 UTC. */
export const POSTGRES_EPOCH_MS = 946_684_800_000;

/** A timestamp in microseconds since 2000-01-01 UTC, as milliseconds since 1970-01-01 UTC. */
export function unixMs(timestamp: bigint): number {
  return POSTGRES_EPOCH_MS + Number(timestamp / 1000n);
}

/** Seconds since a timestamp in microseconds since 2000-01-01 UTC; 0 if it is in the future. */
export function ageSeconds(timestamp: bigint): number {
  return Math.max(0, (Date.now() - unixMs(timestamp)) / 1000);
}

/** A time in RFC 3339 UTC with six digits of a second, as microseconds since 2000-01-01 UTC. */
export function parseTimestamp(text: string): bigint {
  const [seconds, fraction] = text.replace("Z", "").split(".");
  return BigInt(Date.parse(`${seconds}Z`) - POSTGRES_EPOCH_MS) * 1000n + BigInt(fraction);
}
