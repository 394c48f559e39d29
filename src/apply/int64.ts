/**
 * 64-bit integers as PostgreSQL's binary form has them: positions, timestamps, epochs.
 */
import { Buffer } from "node:buffer";

/** Eight bytes, the highest first. */
export function int64(value: bigint): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
}
