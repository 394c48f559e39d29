/**
 * The images of the suite, built without a registry: PostgreSQL from the embedded packages, mmlite from the
 * executable under test. `RUN_ID` is in the names of all, so that a run finds its own and removes them.
 */
import { dirname, join } from "node:path";
import { GenericContainer } from "testcontainers";
import { makeNodeExecutable } from "../../scripts/compile/node_executable.ts";
import { hostTarget } from "../../scripts/compile/target.ts";
import { VERSION } from "../../src/version.ts";
import { defaultCache, ensureBinaries } from "../support/postgres_binaries.ts";
import type { PostgresMajor } from "../support/postgres_packages.ts";
import { removeScratch, scratchBase } from "../support/scratch.ts";
import { addAccount, addLibraries, addProgram } from "./root_files.ts";

/** What tells this run's containers, volumes, networks and images from all others. */
export const RUN_ID = Deno.env.get("MMLITE_CONTAINERS_RUN") ??
  `run-${Deno.pid}`;

const ROOT = join(import.meta.dirname!, "../..");
/** Releases of the servers. */
const NEW_MAJOR = 18;
const OLD_MAJOR = 13;
/** Of the account in PostgreSQL's image, as its Dockerfile has it. */
const POSTGRES_USER_ID = 70;

/** Names of the images. */
export interface Images {
  readonly newPostgres: string;
  readonly oldPostgres: string;
  /** The program under test, and the same with another version's number. */
  readonly mmlite: string;
  readonly nextMmlite: string;
  readonly nextVersion: string;
}

/** Builds every image. */
export async function buildImages(): Promise<Images> {
  const executable = Deno.env.get("MMLITE_PROGRAM") ?? join(ROOT, "dist/mmlite");
  const [newPostgres, oldPostgres, mmlite, next] = await Promise.all([
    buildPostgresImage(NEW_MAJOR),
    buildPostgresImage(OLD_MAJOR),
    buildMmliteImage("present", executable),
    buildNextMmlite(join(dirname(executable), "mmlite.mjs")),
  ]);
  return { newPostgres, oldPostgres, mmlite, ...next };
}

/** Makes another version of the module that is in the executable, and its image. */
async function buildNextMmlite(module: string): Promise<Pick<Images, "nextMmlite" | "nextVersion">> {
  const nextVersion = `${VERSION}-next`;
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-next-" });
  try {
    const [next, executable] = [join(directory, "mmlite.mjs"), join(directory, "mmlite")];
    const text = await Deno.readTextFile(module);
    await Deno.writeTextFile(next, text.replaceAll(`"${VERSION}"`, `"${nextVersion}"`));
    await makeNodeExecutable({ module: next, target: hostTarget()!, executable });
    return { nextMmlite: await buildMmliteImage("next", executable), nextVersion };
  } finally {
    await removeScratch(directory);
  }
}

async function buildPostgresImage(major: PostgresMajor): Promise<string> {
  const binaries = await ensureBinaries(major, defaultCache());
  return await buildImage(`postgres:${major}`, async (context) => {
    const root = join(context, "root");
    const home = join(root, "usr/local/pgsql");
    await Deno.mkdir(home, { recursive: true });
    await run("cp", ["-R", ...["bin", "lib", "share"].map((part) => join(binaries, part)), home]);
    await addProgram(root, "/bin/sh", "/bin/sh");
    const programs = ["bin/postgres", "bin/initdb", "lib/postgresql/libpqwalreceiver.so"];
    await addLibraries(root, programs.map((one) => join(binaries, one)), binaries);
    await addAccount(root, { name: "postgres", id: POSTGRES_USER_ID });
    await Deno.copyFile(join(import.meta.dirname!, "postgres/start.sh"), join(root, "start.sh"));
    await Deno.copyFile(join(import.meta.dirname!, "postgres/Dockerfile"), join(context, "Dockerfile"));
    await Deno.mkdir(join(context, "data"));
  });
}

/** The image as contrib/ defines it. */
async function buildMmliteImage(tag: string, executable: string): Promise<string> {
  return await buildImage(`mmlite:${tag}`, async (context) => {
    await run(join(ROOT, "contrib/container/build"), ["--context", context, executable]);
  });
}

async function buildImage(name: string, fill: (context: string) => Promise<void>): Promise<string> {
  const context = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-image-" });
  try {
    await fill(context);
    const image = `${RUN_ID}/${name}`;
    await GenericContainer.fromDockerfile(context).build(image, { deleteOnExit: false });
    return image;
  } finally {
    await removeScratch(context);
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args: [...args] }).output();
  if (!success) throw new Error(`Cannot run "${program}": ${new TextDecoder().decode(stderr).trim()}`);
}
