/**
 * `SHA256SUMS`, as `sha256sum -c` reads it.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Name of the file with the checksums. */
export const CHECKSUMS = "SHA256SUMS";

/** Writes the checksums of every artifact in a directory beside them; returns the artifacts' names. */
export async function writeChecksums(directory: string): Promise<string[]> {
  const names = (await readdir(directory)).filter((name) => name.startsWith("mmlite")).sort();
  const lines = await Promise.all(
    names.map(async (name) => `${await sha256(join(directory, name))}  ${name}\n`),
  );
  await writeFile(join(directory, CHECKSUMS), lines.join(""));
  return names;
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}
