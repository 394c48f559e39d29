/**
 * Where started servers keep their files, and as whom they run.
 *
 * PostgreSQL refuses to run as root, so root starts it as `nobody`; what it reads must then lie where `nobody`
 * may look, which a checkout or a home directory of root is not.
 */

/** Longest base directory under which a socket path still fits the kernel's 107 bytes. */
const MAX_BASE_LENGTH = 60;

/** The account that servers run under. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** The account to switch to, or undefined where the present one may run PostgreSQL. */
export function serverUser(): ServerUser | undefined {
  if (Deno.uid() !== 0) return undefined;
  return { uid: idOf("-u"), gid: idOf("-g") };
}

function idOf(flag: "-u" | "-g"): number {
  const output = new Deno.Command("id", { args: [flag, "nobody"], stdout: "piped" }).outputSync();
  return Number(new TextDecoder().decode(output.stdout));
}

/** The directory for everything temporary: TMPDIR, or /tmp where that is too long or root's alone. */
export function scratchBase(): string {
  const directory = Deno.env.get("TMPDIR") ?? "/tmp";
  return Deno.uid() === 0 || directory.length > MAX_BASE_LENGTH ? "/tmp" : directory;
}

/** A new directory `mmlite-<purpose>-…`, owned by the account that servers run under. */
export async function makeScratch(purpose: string): Promise<string> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: `mmlite-${purpose}-` });
  await giveToServer(directory);
  return directory;
}

/** Hands a path, not what is below it, to the account that servers run under. */
export async function giveToServer(path: string): Promise<void> {
  const user = serverUser();
  if (user) await Deno.chown(path, user.uid, user.gid);
}

/** Removes a directory if it is there. */
export async function removeScratch(directory: string): Promise<void> {
  await Deno.remove(directory, { recursive: true }).catch((thrown) => {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  });
}

const handedOut = new Set<number>();

/**
 * A TCP port of 127.0.0.1 that was free a moment ago, another with each call; whoever binds it must be ready to
 * try another.
 */
export function freePort(): number {
  for (;;) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    return port;
  }
}
