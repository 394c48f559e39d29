/**
 * Amounts of bytes as PostgreSQL's settings have them, in steps of 1024: `512MB`, `10GB`; `512MiB` is the same.
 */

const UNIT_BYTES: Readonly<Record<string, number>> = {
  kB: 1024,
  MB: 1024 ** 2,
  GB: 1024 ** 3,
  TB: 1024 ** 4,
};

/** What is expected of an amount, to stand behind "expected". */
export const BYTE_SIZE_RULE = "a number and its unit, such as 512MB, 20MiB or 10GB";

/** Whole bytes, more than 0, or null for what is no such amount. */
export function parseByteSize(text: string): number | null {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)([kKMGT])(i?)B$/.exec(text);
  if (match === null || (match[2] === "K" && match[3] === "")) return null;
  const bytes = Math.round(Number(match[1]) * UNIT_BYTES[match[2] === "K" ? "kB" : `${match[2]}B`]);
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : null;
}

/** About that amount, for people. */
export function formatByteSize(bytes: number): string {
  const [unit, size] = Object.entries(UNIT_BYTES).findLast(([, size]) => bytes >= size) ?? ["bytes", 1];
  const amount = bytes / size;
  return `${amount < 10 && size > 1 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}
