/**
 * The incarnation: which life of this node's database is running, told by the database and by a file beside mmlite.
 *
 * A clone, or a backup restored elsewhere, brings the database's half along and not the file; then nothing may start,
 * because peers know the original. A database set back in place keeps both halves: the positions in the handshake tell.
 */
import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MmliteError } from "../errors.ts";
import { createNode, readNode, requireSameNode } from "../pg/identity.ts";
import type { Query } from "../pg/query.ts";

interface Expected {
  readonly cluster: string;
  readonly name: string;
  /** The state directory. */
  readonly state: string;
}

/** Where a node's file is. */
export function incarnationFile(state: string, name: string): string {
  return join(state, `${name}.incarnation`);
}

/**
 * Makes the database this node at its first start, or checks that both halves are those of this node.
 *
 * Returns the incarnation; throws `fenced` with the remedy when the halves differ.
 */
export async function ensureIncarnation(query: Query, expected: Expected): Promise<string> {
  const file = incarnationFile(expected.state, expected.name);
  const found = await readNode(query);
  const written = await readIncarnationFile(file);
  if (found !== undefined) {
    requireSameNode(found, expected);
    if (written === undefined) throw missingFile(file, expected.name, found.incarnation);
    if (written !== found.incarnation) throw differentLife(file, expected.name);
    return found.incarnation;
  }
  // A file without a database's half is an earlier life's: peers that knew it will fence the new one.
  const incarnation = randomUUID();
  // The file first: a database without it would be fenced for good after a crash between the two.
  await writeIncarnationFile(file, incarnation);
  await createNode(query, { cluster: expected.cluster, name: expected.name, incarnation });
  return incarnation;
}

async function readIncarnationFile(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (thrown) {
    if ((thrown as { code?: string }).code === "ENOENT") return undefined;
    throw stateError("read", file, thrown);
  }
}

/** Written aside, flushed and renamed, so that a crash leaves either no file or a whole one. */
async function writeIncarnationFile(file: string, incarnation: string): Promise<void> {
  const aside = `${file}.new`;
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const handle = await open(aside, "w", 0o600);
    try {
      await handle.writeFile(`${incarnation}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(aside, file);
  } catch (thrown) {
    throw stateError("write", file, thrown);
  }
}

function stateError(verb: string, file: string, cause: unknown): MmliteError {
  const why = (cause as { code?: string }).code ?? "failed";
  return new MmliteError("config", `Cannot ${verb} state file "${file}": ${why}`, {
    hint: "Give mmlite a directory of its own that it may write, with --state DIR",
    cause,
  });
}

function missingFile(file: string, name: string, incarnation: string): MmliteError {
  return new MmliteError(
    "fenced",
    `Cannot run as node "${name}": its database has been a node before, and state file "${file}" is missing`,
    {
      hint: `If this is that node's own database, at its latest state, and only the file was lost: write ` +
        `${incarnation} into it. If the database is a copy or a restored backup: drop schema mmlite and its ` +
        `slots here, and add its peers again`,
    },
  );
}

function differentLife(file: string, name: string): MmliteError {
  return new MmliteError(
    "fenced",
    `Cannot run as node "${name}": its database and state file "${file}" tell of different lives, ` +
      `so the database was restored from a backup or is another node's copy`,
    { hint: "Drop schema mmlite and its slots here, remove the file, and add its peers again" },
  );
}
