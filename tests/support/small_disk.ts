/**
 * A tablespace that is soon full: a file system of a few hundred KiB in memory. Only root can mount one.
 */
import { makeScratch, removeScratch, serverUser } from "./scratch.ts";

/** Room at first, and after {@link SmallDisk.grow}. */
const SIZE = "512k";
const GROWN_SIZE = "64m";

/** A file system of its own, empty and owned by the account that servers run under. */
export interface SmallDisk extends AsyncDisposable {
  readonly directory: string;
  grow(): Promise<void>;
}

/** Mounts one; undefined where that is not allowed. */
export async function openSmallDisk(): Promise<SmallDisk | undefined> {
  const user = serverUser();
  if (user === undefined) return undefined;
  const directory = await makeScratch("disk");
  const options = (size: string) => `size=${size},uid=${user.uid},gid=${user.gid},mode=0700`;
  if (!await run("mount", "-t", "tmpfs", "-o", options(SIZE), "mmlite", directory)) {
    await removeScratch(directory);
    return undefined;
  }
  return {
    directory,
    grow: async () => void await run("mount", "-o", `remount,${options(GROWN_SIZE)}`, directory),
    [Symbol.asyncDispose]: async () => {
      // The server that has files there is stopped by now, or about to be.
      await run("umount", "--lazy", directory);
      await removeScratch(directory);
    },
  };
}

async function run(command: string, ...args: string[]): Promise<boolean> {
  const { success } = await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output();
  return success;
}
