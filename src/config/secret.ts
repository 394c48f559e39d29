/**
 * Secrets: read from files that not everybody may read, and masked wherever they would be printed.
 */
import { readFile, stat } from "node:fs/promises";
import process from "node:process";
import { MmliteError } from "../errors.ts";

const READ_OR_WRITTEN_BY_OTHERS = 0o006;
const MASK = "***";

/**
 * The first line of a file that holds a secret. Throws `config` when it cannot be read, is empty, or when
 * every user of the machine may read or write it.
 */
export async function readSecretFile(path: string): Promise<string> {
  const text = await readProtected(path);
  const secret = text.split("\n", 1)[0].trim();
  if (secret === "") {
    throw new MmliteError("config", `Cannot use secret file "${path}": its first line is empty`);
  }
  return secret;
}

async function readProtected(path: string): Promise<string> {
  try {
    const { mode } = await stat(path);
    if (process.platform === "win32" || (mode & READ_OR_WRITTEN_BY_OTHERS) === 0) {
      return await readFile(path, "utf8");
    }
  } catch (error) {
    throw new MmliteError("config", `Cannot read secret file "${path}": ${(error as Error).message}`, {
      hint: "Create the file, readable by the user that runs mmlite",
      cause: error,
    });
  }
  throw new MmliteError("config", `Cannot use secret file "${path}": every user may read or write it`, {
    hint: `Run: chmod o-rwx '${path}'`,
  });
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
