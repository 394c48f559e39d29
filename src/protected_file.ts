/**
 * Files that hold a secret, read only where not everybody on the machine may read or write them.
 */
import { readFile, stat } from "node:fs/promises";
import process from "node:process";
import { MmliteError } from "./errors.ts";

const READ_OR_WRITTEN_BY_OTHERS = 0o006;

/**
 * The text of a file. Throws `config` when it cannot be read, or when every user of the machine may read or
 * write it; `what` names it in the error, such as `secret file`.
 */
export async function readProtectedFile(path: string, what: string): Promise<string> {
  try {
    const { mode } = await stat(path);
    if (process.platform === "win32" || (mode & READ_OR_WRITTEN_BY_OTHERS) === 0) {
      return await readFile(path, "utf8");
    }
  } catch (error) {
    throw new MmliteError("config", `Cannot read ${what} "${path}": ${(error as Error).message}`, {
      hint: "Create the file, readable by the user that runs mmlite",
      cause: error,
    });
  }
  throw new MmliteError("config", `Cannot use ${what} "${path}": every user may read or write it`, {
    hint: `Run: chmod o-rwx '${path}'`,
  });
}
