/**
 * Keys and certificates on disk: written so that a key is nobody else's, and nothing is overwritten by accident.
 */
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { MmliteError } from "../errors.ts";

/** A file to be written. */
export interface NewFile {
  readonly path: string;
  readonly text: string;
  /** Only its owner may read a secret; everybody may read the rest. */
  readonly secret: boolean;
}

const SECRET_MODE = 0o600;
const PUBLIC_MODE = 0o644;
const DIRECTORY_MODE = 0o700;

/** Makes a directory that only its owner may enter, unless it is there. */
export async function ensureKeyDirectory(path: string): Promise<void> {
  await attempt(path, () => mkdir(path, { recursive: true, mode: DIRECTORY_MODE }));
}

/** Writes files that must not be there yet, all of them or none; throws `conflict` where one is. */
export async function createFiles(files: readonly NewFile[]): Promise<void> {
  const created: string[] = [];
  try {
    for (const file of files) {
      await attempt(file.path, () => writeNew(file.path, file));
      created.push(file.path);
    }
  } catch (thrown) {
    for (const path of created) await rm(path, { force: true });
    throw thrown;
  }
}

/** Writes a file or puts another in its place, in one step, so that nobody reads half of it. */
export async function replaceFile(file: NewFile): Promise<void> {
  const beside = `${file.path}.${randomBytes(6).toString("hex")}.new`;
  await attempt(file.path, async () => {
    try {
      await writeNew(beside, file);
      await rename(beside, file.path);
    } finally {
      await rm(beside, { force: true });
    }
  });
}

async function writeNew(path: string, { text, secret }: NewFile): Promise<void> {
  const mode = secret ? SECRET_MODE : PUBLIC_MODE;
  const file = await open(path, "wx", mode);
  try {
    // The umask has taken bits of the mode that the file was opened with.
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function attempt<Result>(path: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") {
      throw new MmliteError("conflict", `Cannot write "${path}": it exists`, {
        hint: "Name another directory with --out, or move the file away if nothing uses it",
        cause,
      });
    }
    throw new MmliteError("config", `Cannot write "${path}": ${message}`, {
      hint: "Check the path, and that this user may write there",
      cause,
    });
  }
}
