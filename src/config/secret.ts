/**
 * Secrets: read from files that not everybody may read, and masked wherever they would be printed.
 */
import { MmliteError } from "../errors.ts";
import { readProtectedFile } from "../protected_file.ts";

const MASK = "***";

/**
 * The first line of a file that holds a secret. Throws `config` when it cannot be read, is empty, or when
 * every user of the machine may read or write it.
 */
export async function readSecretFile(path: string): Promise<string> {
  const text = await readProtectedFile(path, "secret file");
  const secret = text.split("\n", 1)[0].trim();
  if (secret === "") {
    throw new MmliteError("config", `Cannot use secret file "${path}": its first line is empty`);
  }
  return secret;
}

/**
 * A connection string, URL or `key=value` form, with its passwords replaced. Takes too much rather than too
 * little for a malformed one: everything from the first `:` to the last `@`.
 */
export function maskPassword(connectionString: string): string {
  return connectionString
    .replace(/^([a-z]+:\/\/[^:@/?]*):.*@/is, `$1:${MASK}@`)
    .replace(/((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&#]+)/gi, `$1${MASK}`);
}
