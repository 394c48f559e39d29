/**
 * An executable by `deno compile`: smaller, but its runtime `denort` is in no npm package.
 *
 * Deno takes it from the file that DENORT_BIN names, else from its cache, else from its release server.
 */
import { join } from "node:path";
import { output } from "./command.ts";
import { HEAP_LIMITS } from "./heap.ts";
import type { ExecutableOptions } from "./node_executable.ts";
import type { Target } from "./target.ts";

/** Makes the executable; throws with the ways to get the runtime where there is none. */
export async function makeDenoExecutable({ module, target, executable }: ExecutableOptions): Promise<void> {
  const args = [
    "compile",
    ...["--quiet", "--no-config", "--no-check", "-A", `--v8-flags=${HEAP_LIMITS.join(",")}`],
    ...["--target", target.denoTriple, "--output", executable, module],
  ];
  await output(Deno.execPath(), args, { NO_COLOR: "1" }).catch(async (thrown: Error) => {
    throw new Error(`${reason(thrown.message)}\n${await waysToRuntime(target)}`);
  });
}

/** What to do where denort is missing. */
export async function waysToRuntime({ denoTriple }: Target): Promise<string> {
  const { denoDir } = JSON.parse(await output(Deno.execPath(), ["info", "--json"]));
  const version = Deno.version.deno;
  const archive = join(denoDir, "dl", "release", `v${version}`, `denort-${denoTriple}.zip`);
  return `Deno's runtime for executables, denort ${version} for ${denoTriple}, comes from one of these:
  DENORT_BIN=FILE   names the program itself
  ${archive}
                    is the release's archive, copied there
  the network       where Deno's release server can be reached
Without --runtime deno the runtime is Node.js, which comes from npm.`;
}

/** The innermost cause that names the server, or the first line; no stack. */
function reason(message: string): string {
  const lines = message.split("\n").map((line) => line.trim().replace(/^\d+: /, ""));
  const cause = lines.find((line) => line.startsWith("error sending request")) ?? lines[0];
  return `Cannot compile with Deno's runtime: ${cause}`;
}
