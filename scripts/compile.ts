/**
 * `deno task compile [--target T] [--runtime node|deno]`: the program as one ES module, dist/mmlite.mjs, as one
 * executable, and their checksums, dist/SHA256SUMS.
 *
 * The executable is dist/mmlite for this machine, and dist/mmlite-T if a target is named. It is Node.js from npm with
 * the module inside, and needs nothing on its host but glibc, libstdc++ and libatomic.
 */
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { writeChecksums } from "./compile/checksums.ts";
import { output } from "./compile/command.ts";
import { makeDenoExecutable, waysToRuntime } from "./compile/deno_executable.ts";
import { makeNodeExecutable } from "./compile/node_executable.ts";
import { findTarget, hostTarget, type Target, TARGETS } from "./compile/target.ts";
import { readOptions, refuseOptions } from "./options.ts";

const ROOT = dirname(import.meta.dirname!);
const DIST = join(ROOT, "dist");
const RUNTIMES = { node: makeNodeExecutable, deno: makeDenoExecutable };

interface Options {
  readonly target: Target;
  /** File name of the executable. */
  readonly artifact: string;
  readonly runtime: keyof typeof RUNTIMES;
}

function parseOptions(): Options {
  const values = readOptions(import.meta.url, {
    target: { type: "string" },
    runtime: { type: "string", default: "node" },
  });
  const { runtime } = values;
  if (runtime !== "node" && runtime !== "deno") {
    refuseOptions(`No runtime is called "${runtime}"; there are ${Object.keys(RUNTIMES).join(", ")}`);
  }
  const target = values.target === undefined ? hostTarget() : findTarget(values.target);
  if (!target) {
    const names = TARGETS.map(({ name }) => name).join(", ");
    refuseOptions(`Nothing can be compiled for ${values.target ?? Deno.build.target}; there are ${names}`);
  }
  return { target, runtime, artifact: values.target === undefined ? "mmlite" : `mmlite-${target.name}` };
}

/** Writes the program as one module. */
async function bundle(module: string): Promise<void> {
  const options = [
    ...["--quiet", "--minify", "--platform", "deno"],
    // `pg` tries its native sibling only when asked for it by name.
    ...["--external", "pg-native", "--output", module],
  ];
  await output(Deno.execPath(), ["bundle", ...options, join(ROOT, "mod.ts")]);
  const commit = await describeCommit();
  const named = commit === null ? "" : `globalThis.MMLITE_COMMIT=${JSON.stringify(commit)};\n`;
  await writeFile(module, named + await readFile(module, "utf8"));
}

/** The commit that is compiled, `-dirty` after it if files differ from it; null outside a repository. */
async function describeCommit(): Promise<string | null> {
  const args = ["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"];
  return await output("git", ["-C", ROOT, ...args]).then((text) => text.trim(), () => null);
}

/** What the executable says it is; a runtime that is none shows here. */
async function checkExecutable(path: string, { target, runtime }: Options): Promise<string> {
  const about = await output(path, ["version"]).catch((thrown: Error) => thrown.message);
  if (about.startsWith("mmlite ")) return about.trim();
  const remedy = runtime === "deno" ? `\n${await waysToRuntime(target)}` : "";
  throw new Error(`The executable is not mmlite: ${about.trim().split("\n")[0]}${remedy}`);
}

/** Makes all artifacts under other names first: those that are there stay whole, and a node goes on running. */
async function compile(options: Options): Promise<string> {
  const { artifact, target, runtime } = options;
  await mkdir(DIST, { recursive: true });
  const making = await mkdtemp(join(DIST, ".making-"));
  try {
    const [module, executable] = [join(making, "mmlite.mjs"), join(making, artifact)];
    await bundle(module);
    await RUNTIMES[runtime]({ module, target, executable });
    const about = target === hostTarget()
      ? await checkExecutable(executable, options)
      : `mmlite for ${target.name}, which this machine cannot run`;
    for (const path of [module, executable]) await rename(path, join(DIST, basename(path)));
    await writeChecksums(DIST);
    const megabytes = Math.round((await stat(join(DIST, artifact))).size / 1_000_000);
    return `dist/${artifact} (${megabytes} MB) and dist/mmlite.mjs are ${about}.`;
  } finally {
    await rm(making, { recursive: true, force: true });
  }
}

const options = parseOptions();
try {
  console.log(await compile(options));
} catch (thrown) {
  console.error((thrown as Error).message);
  process.exit(1);
}
