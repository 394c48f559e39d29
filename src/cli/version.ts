/**
 * `mmlite version`: what this program is; needs no node.
 */
import type { Command } from "commander";
import process from "node:process";
import { VERSION } from "../version.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatData } from "./output.ts";

/** Adds the command. */
export function addVersion(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const action = ({ output }: GlobalOptions) => {
    const about = {
      name: "mmlite",
      version: VERSION,
      commit: buildCommit(),
      runtime: describeRuntime(),
      target: `${process.platform}-${process.arch}`,
    };
    context.print(output === "table" ? describe(about) : formatData(about, output));
    return Promise.resolve(0);
  };
  setAction(program.command("version").description("print version and runtime"), { action, finish });
}

function describe(
  { version, commit, runtime }: { version: string; commit: string | null; runtime: string },
): string {
  return `mmlite ${version}${commit === null ? "" : ` (${commit})`} on ${runtime}`;
}

/** The commit a bundle was made of, which its first line sets; null when run from the sources. */
function buildCommit(): string | null {
  return (globalThis as { MMLITE_COMMIT?: string }).MMLITE_COMMIT ?? null;
}

function describeRuntime(): string {
  const { deno, node } = process.versions as { deno?: string; node: string };
  return deno === undefined ? `node ${node}` : `deno ${deno}`;
}
