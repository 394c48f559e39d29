/**
 * The file that says that this node's join has begun and not ended, so that it can go on after a crash, and so that
 * `mmlite run` does not start a node whose tables nobody has compared.
 */
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { MmliteError } from "../errors.ts";
import { NODE_NAME } from "../node_name.ts";
import { replaceFile } from "../pki/key_files.ts";

const Pending = z.object({
  cluster: z.string().regex(NODE_NAME),
  node: z.string().regex(NODE_NAME),
  inviter: z.string().regex(NODE_NAME),
  urls: z.array(z.url()).min(1),
  /** The request for the certificate, PEM: made with the key, and the same each time. */
  request: z.string(),
});
/** A join that has begun: who joins through whom. Holds no secret. */
export type PendingJoin = z.infer<typeof Pending>;

/** Where the file is. */
export function pendingJoinFile(state: string): string {
  return join(state, "join.json");
}

/** The join that has begun, or null. Throws `config` for a file that cannot be read. */
export async function readPendingJoin(state: string): Promise<PendingJoin | null> {
  const path = pendingJoinFile(state);
  if (!existsSync(path)) return null;
  try {
    return Pending.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (cause) {
    throw new MmliteError(
      "config",
      `Cannot read "${path}": ${(cause as { code?: string }).code ?? "it is damaged"}`,
      {
        hint: "Remove it and the files in the folder tls beside it, then join with a new token",
        cause,
      },
    );
  }
}

/** Writes the file, on disk when this returns. */
export async function writePendingJoin(state: string, pending: PendingJoin): Promise<void> {
  const text = `${JSON.stringify(pending, null, 2)}\n`;
  await replaceFile({ path: pendingJoinFile(state), text, secret: true });
}

/** Removes the file: the join has ended. */
export async function removePendingJoin(state: string): Promise<void> {
  await rm(pendingJoinFile(state), { force: true });
}

/** Throws `conflict` while a join has begun and not ended. */
export async function requireNoPendingJoin(state: string): Promise<void> {
  const pending = await readPendingJoin(state);
  if (pending === null) return;
  const { node, inviter } = pending;
  throw new MmliteError(
    "conflict",
    `Cannot run node "${node}": its join through "${inviter}" has not ended`,
    {
      hint: "Run the same `mmlite join` again: it goes on where it stopped",
    },
  );
}
