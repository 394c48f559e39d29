/**
 * Root file systems for images, made of programs of this machine: each with the shared libraries that it loads, and
 * nothing else of the machine.
 */
import { dirname, join } from "node:path";

/** Puts a program at `to` below `root`, and its libraries where it finds them. */
export async function addProgram(
  root: string,
  program: string,
  to: string,
): Promise<void> {
  await copyFile(program, join(root, to));
  await addLibraries(root, [program]);
}

/** Puts the libraries that programs load where they find them; those below `except` are there already. */
export async function addLibraries(
  root: string,
  programs: readonly string[],
  except?: string,
): Promise<void> {
  for (const library of await librariesOf(programs)) {
    if (except === undefined || !library.startsWith(except)) {
      await copyFile(library, join(root, library));
    }
  }
}

/** Puts the accounts that a program may look up, and in which order it asks for the names of hosts. */
export async function addAccount(
  root: string,
  { name, id }: { readonly name: string; readonly id: number },
): Promise<void> {
  await Deno.mkdir(join(root, "etc"), { recursive: true });
  await Deno.writeTextFile(
    join(root, "etc/passwd"),
    `root:x:0:0:root:/:/bin/false\n${name}:x:${id}:${id}:${name}:/:/bin/false\n`,
  );
  await Deno.writeTextFile(
    join(root, "etc/group"),
    `root:x:0:\n${name}:x:${id}:\n`,
  );
  await Deno.writeTextFile(
    join(root, "etc/nsswitch.conf"),
    "hosts: files dns\n",
  );
}

/** Lines of ldd are `name => /path (address)`, or `/path (address)` for the loader itself. */
async function librariesOf(programs: readonly string[]): Promise<Set<string>> {
  const { success, stdout, stderr } = await new Deno.Command("ldd", {
    args: [...programs],
  }).output();
  const decoder = new TextDecoder();
  if (!success) {
    throw new Error(
      `Cannot list the libraries of ${programs}: ${decoder.decode(stderr)}`,
    );
  }
  const lines = decoder.decode(stdout);
  const missing = lines.match(/^\s*(\S+) => not found$/m);
  if (missing) {
    throw new Error(`Cannot run ${programs}: there is no ${missing[1]} here`);
  }
  return new Set([...lines.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path));
}

async function copyFile(from: string, to: string): Promise<void> {
  await Deno.mkdir(dirname(to), { recursive: true });
  await Deno.copyFile(from, to);
}
