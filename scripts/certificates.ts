/**
 * Certificates for the nodes of a script, made as an operator makes them.
 */
import { join } from "node:path";
import { runMmlite } from "../tests/support/mmlite.ts";
import { makeScratch, removeScratch } from "../tests/support/scratch.ts";

/** Issues certificates of one authority. */
export interface Authority {
  /** Makes a node's files; the directory that has them. */
  issue(node: string): Promise<string>;
}

/** Makes an authority, whose files go with `stack`. */
export async function openAuthority(stack: AsyncDisposableStack): Promise<Authority> {
  const directory = await makeScratch("certificates");
  stack.defer(() => removeScratch(directory));
  await run("cert", "ca", "--out", directory);
  const [ca, caKey] = [join(directory, "ca.pem"), join(directory, "ca-key.pem")];
  return {
    async issue(node) {
      const out = join(directory, node);
      await run("cert", "issue", node, "--out", out, "--ca", ca, "--ca-key", caKey);
      return out;
    },
  };
}

async function run(...args: string[]): Promise<void> {
  const { code, stderr } = await runMmlite(args);
  if (code !== 0) throw new Error(`Cannot run mmlite ${args.join(" ")}: ${stderr}`);
}
