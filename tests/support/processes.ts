/**
 * Processes by id: whose child is which, whether one still runs, and signals that forgive one that is gone.
 */

interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly state: string;
}

/** Process ids of the direct children of `pid`. */
export async function childrenOf(pid: number): Promise<number[]> {
  return (await listProcesses()).filter((entry) => entry.parent === pid).map((entry) => entry.pid);
}

/** Which of `pids` run. A dead process that nobody has collected yet does not. */
export async function running(pids: readonly number[]): Promise<number[]> {
  const alive = (await listProcesses()).filter((entry) => !entry.state.startsWith("Z"));
  return alive.map((entry) => entry.pid).filter((pid) => pids.includes(pid));
}

/** Sends a signal; a process that is gone already is fine. */
export function signalProcess(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}

async function listProcesses(): Promise<ProcessEntry[]> {
  return Deno.build.os === "linux" ? await listByProc() : await listByPs();
}

/** https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: pid, (name), state, parent. */
async function listByProc(): Promise<ProcessEntry[]> {
  const entries: ProcessEntry[] = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await Deno.readTextFile(`/proc/${name}/stat`).catch(() => undefined);
    if (stat === undefined) continue; // It ended between the two looks.
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    entries.push({ pid: Number(name), parent: Number(parent), state });
  }
  return entries;
}

async function listByPs(): Promise<ProcessEntry[]> {
  const output = await new Deno.Command("ps", { args: ["-A", "-o", "pid=,ppid=,stat="] }).output();
  return new TextDecoder().decode(output.stdout).trim().split("\n").map((line) => {
    const [pid, parent, state] = line.trim().split(/\s+/);
    return { pid: Number(pid), parent: Number(parent), state };
  });
}
