/**
 * A leash on started processes: they end and their directory goes even if the process that started them is
 * killed before it can clean up.
 *
 * A small shell, in a process group of its own so that a Ctrl-C does not reach it, waits for the end of its
 * standard input, which comes when its owner dies in whatever way. Then it kills the process that it was told
 * of last and removes the directory. Released, it just exits.
 */

// Lines: a process id to hold, `0` for none, `release` to exit without doing anything.
const LEASH_SCRIPT = `
pid=0
while read -r line; do
  [ "$line" = release ] && exit 0
  pid=$line
done
if [ "$pid" -gt 0 ]; then
  kill -QUIT "$pid" 2>/dev/null
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf -- "$1"
`;

/** Holds one process and one directory; see the module. */
export interface Leash {
  /** The process to kill (SIGQUIT, then SIGKILL) when the owner dies; 0 for none. */
  hold(pid: number): Promise<void>;
  /** Lets go: from here on the owner's end changes nothing. May be called again. */
  release(): Promise<void>;
}

/** Opens a leash on `directory`, which is removed if this process ends without `release()`. */
export function openLeash(directory: string): Leash {
  const shell = new Deno.Command("sh", {
    args: ["-c", LEASH_SCRIPT, "leash", directory],
    stdin: "piped",
    stdout: "null",
    stderr: "null",
    cwd: "/",
    detached: true,
  }).spawn();
  const writer = shell.stdin.getWriter();
  let released = false;
  const tell = (line: string) => writer.write(new TextEncoder().encode(line + "\n"));
  return {
    async hold(pid) {
      if (!released) await tell(String(pid));
    },
    async release() {
      if (released) return;
      released = true;
      await tell("release");
      await writer.close().catch(() => {}); // The shell may be gone already, which is what was asked.
      await shell.status;
    },
  };
}
