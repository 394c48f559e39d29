/**
 * Running deno with its output passed on, and counting what its tests came to.
 */
import { join } from "node:path";

const ROOT = join(import.meta.dirname!, "..");

/** How many tests passed, failed and did not run. */
export interface Outcome {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** What a run of deno is given beside its arguments. */
export interface RunOptions {
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Ends it. */
  readonly signal?: AbortSignal;
}

/** What `deno test` counted, from its closing line `ok | 9 passed (4 steps) | 0 failed | 2 ignored (27s)`. */
export function parseSummary(output: string): Outcome | undefined {
  // deno-lint-ignore no-control-regex
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const line =
    /^(?:ok|FAILED) \| (\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed(?: \(\d+ steps?\))?(?: \| (\d+) ignored)?/gm;
  const last = [...plain.matchAll(line)].at(-1);
  return last && { passed: Number(last[1]), failed: Number(last[2]), skipped: Number(last[3] ?? 0) };
}

/** The closing line of a report. */
export function formatOutcome({ passed, failed, skipped }: Outcome): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** Runs deno in the repository with its output passed on as it comes, and returned. */
export async function runDeno(
  args: readonly string[],
  { env, signal }: RunOptions = {},
): Promise<{ output: string; success: boolean }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    env,
    signal,
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stdout) {
    await Deno.stdout.write(chunk);
    output += decoder.decode(chunk, { stream: true });
  }
  return { output, success: (await child.status).success };
}

/** Runs `deno test`. One that ends without a summary, or badly without a failed test, counts as one failure. */
export async function runTests(args: readonly string[], options?: RunOptions): Promise<Outcome> {
  const { output, success } = await runDeno(["test", "-A", ...args], options);
  const { passed, failed, skipped } = parseSummary(output) ?? { passed: 0, failed: 0, skipped: 0 };
  const broken = !success || passed + failed === 0;
  return { passed, skipped, failed: broken ? Math.max(failed, 1) : failed };
}
