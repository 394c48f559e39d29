/**
 * Log sequence numbers: byte positions in one server's write-ahead log.
 *
 * Positions of two servers are never compared with each other. Text form is PostgreSQL's own, `16/B374D848`
 * (https://www.postgresql.org/docs/current/datatype-pg-lsn.html).
 */
import { MmliteError } from "./errors.ts";

declare const lsnBrand: unique symbol;

/** A byte position in one server's WAL, 0 to 2^64 - 1. */
export type Lsn = bigint & { readonly [lsnBrand]: true };

/** The position before every record; PostgreSQL's `InvalidXLogRecPtr`. */
export const ZERO_LSN = 0n as Lsn;

const MAX_LSN = 0xffff_ffff_ffff_ffffn;
const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** Takes an unsigned 64-bit integer as a position; throws `RangeError` outside 0 to 2^64 - 1. */
export function toLsn(value: bigint): Lsn {
  if (value < 0n || value > MAX_LSN) {
    throw new RangeError(`Cannot take ${value} as an LSN: it is out of range`);
  }
  return value as Lsn;
}

/** Parses PostgreSQL's text form; throws an `invalid_input` error for anything else. */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text);
  if (match === null) {
    throw new MmliteError(
      "invalid_input",
      `Cannot parse LSN ${JSON.stringify(text)}: expected the form 16/B374D848`,
    );
  }
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** Formats a position as PostgreSQL prints it: upper-case hexadecimal halves, no padding. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffff_ffffn).toString(16)}`.toUpperCase();
}

/** The later of two positions of the same server. */
export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}
