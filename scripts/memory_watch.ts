/**
 * Memory and processor time of another process, from /proc (https://man7.org/linux/man-pages/man5/proc.5.html).
 */

/** Between two looks, milliseconds. The kernel's own high-water mark fills the time between. */
const SAMPLE_INTERVAL_MS = 200;
/** `sysconf(_SC_CLK_TCK)` of Linux: clock ticks of /proc/<pid>/stat in a second. */
const TICKS_PER_SECOND = 100;

/** Follows the resident memory of a process that may be killed and started again. */
export class MemoryWatch {
  /** What the process had at the first look, bytes. */
  baseline = 0;
  /** The most that was seen, bytes. */
  peak = 0;
  readonly #pid: () => number | undefined;
  readonly #timer: ReturnType<typeof setInterval>;

  /** `pid` is asked at every look. */
  constructor(pid: () => number | undefined) {
    this.#pid = pid;
    this.#reset();
    this.#look();
    this.#timer = setInterval(() => this.#look(), SAMPLE_INTERVAL_MS);
  }

  /** Takes the last look. */
  stop(): void {
    clearInterval(this.#timer);
    this.#look();
  }

  /** Sets the kernel's high-water mark to what is resident now. */
  #reset(): void {
    Deno.writeTextFileSync(`/proc/${this.#pid()}/clear_refs`, "5");
  }

  #look(): void {
    const status = readStatus(this.#pid());
    if (status === undefined) return; // It is killed, and not yet started again.
    if (this.baseline === 0) this.baseline = status.resident;
    this.peak = Math.max(this.peak, status.resident, status.highest);
  }
}

/** Resident memory of a process that is its own, bytes: of a server's process, what is not shared with others. */
export function ownMemory(pid: number): number {
  return readStatus(pid)?.own ?? 0;
}

/** Resident memory now, the most there was, and what is its own now, bytes; undefined where there is no such process. */
function readStatus(pid: number | undefined): Record<"resident" | "highest" | "own", number> | undefined {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/status`);
    const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
    return { resident: kib("VmRSS") * 1024, highest: kib("VmHWM") * 1024, own: kib("RssAnon") * 1024 };
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

/** Processor time that a process has used since its start, seconds, its threads included. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
