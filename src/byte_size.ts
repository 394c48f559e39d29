/**
 * Sizes as people write them: `512KiB`, `20MiB`, `1.5GB`.
 */

const UNIT_BYTES: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** What is expected of a size, to stand behind "Expected". */
export const BYTE_SIZE_RULE = "a number and its unit, such as 512KiB, 20MiB or 1GB";

/** Whole bytes, at least one, or null for what is no such size. */
export function parseByteSize(text: string): number | null {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(B|kB|MB|GB|KiB|MiB|GiB)$/.exec(text);
  const bytes = match === null ? 0 : Math.round(Number(match[1]) * UNIT_BYTES[match[2]]);
  return bytes >= 1 ? bytes : null;
}
