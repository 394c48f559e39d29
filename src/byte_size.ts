/**
 * Amounts of bytes as PostgreSQL's settings have them: `512MB`, `10GB`, in steps of 1024.
 */

const UNIT_BYTES: Readonly<Record<string, number>> = {
  kB: 1024,
  MB: 1024 ** 2,
  GB: 1024 ** 3,
  TB: 1024 ** 4,
};

/** What is expected of an amount, to stand behind "expected". */
export const BYTE_SIZE_RULE = "a number and its unit, such as 512MB or 10GB";

/** Bytes, more than 0, or null for what is no such amount. */
export function parseByteSize(text: string): number | null {
  const match = /^(\d{1,9})(kB|MB|GB|TB)$/.exec(text);
  const bytes = match === null ? 0 : Number(match[1]) * UNIT_BYTES[match[2]];
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : null;
}

/** About that amount, for people. */
export function formatByteSize(bytes: number): string {
  const [unit, size] = Object.entries(UNIT_BYTES).findLast(([, size]) => bytes >= size) ?? ["bytes", 1];
  const amount = bytes / size;
  return `${amount < 10 && size > 1 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}
