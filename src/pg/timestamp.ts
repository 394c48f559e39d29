/**
 * PostgreSQL's timestamps as text.
 */

/** Milliseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01 UTC. */
const POSTGRES_EPOCH_MS = 946_684_800_000n;

/** RFC 3339 in UTC with microseconds, of microseconds since 2000-01-01 UTC; years 0 to 9999. */
export function formatTimestamp(timestamp: bigint): string {
  const micros = ((timestamp % 1000n) + 1000n) % 1000n;
  const ms = (timestamp - micros) / 1000n + POSTGRES_EPOCH_MS;
  return new Date(Number(ms)).toISOString().replace("Z", `${String(micros).padStart(3, "0")}Z`);
}
