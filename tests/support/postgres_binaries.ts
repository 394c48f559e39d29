/**
 * PostgreSQL's programs and freshly initialised data directories.
 *
 * npm drops symbolic links and its packages lie where the server's account may not read, so each version is
 * copied once into a cache, `mmlite-postgres-<uid>` in the temporary directory, and completed there. Beside it
 * lies what initdb made of it, because copying that is ten times faster than running initdb. Each entry is made
 * under another name and renamed, so one that is there is whole. The cache can be removed whenever no test runs.
 */
import { dirname, join, relative } from "node:path";
import { fetchPackage, packageVersion, type PostgresMajor } from "./postgres_packages.ts";
import { giveToServer, removeScratch, scratchBase, type ServerUser, serverUser } from "./scratch.ts";

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
  return await ensureEntry(join(cache, packageVersion(major)), async (unfinished) => {
    const native = await fetchPackage(major);
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
  const name = [packageVersion(major), options.encoding, options.locale].join("-").replaceAll("/", "_");
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
