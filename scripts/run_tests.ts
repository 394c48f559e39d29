/**
 * `deno task test`: the checks, the unit tests, then the tests on real PostgreSQL servers and whole clusters.
 *
 * Every stage runs, so that one report tells everything. The last line is `N passed, N failed`; the exit code
 * is 1 if a stage failed or ran no test.
 */
import { join } from "node:path";
import process from "node:process";

const ROOT = join(import.meta.dirname!, "..");

interface Outcome {
  readonly passed: number;
  readonly failed: number;
}

/** What `deno test` counted, from its closing line `ok | 9 passed (4 steps) | 0 failed | 2 ignored (27s)`. */
export function parseSummary(output: string): Outcome | undefined {
  // deno-lint-ignore no-control-regex
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const matches = [...plain.matchAll(/^(?:ok|FAILED) \| (\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed/gm)];
  const last = matches.at(-1);
  return last && { passed: Number(last[1]), failed: Number(last[2]) };
}

/** Runs deno with its output passed on as it comes, and returned. */
async function runDeno(args: string[]): Promise<{ output: string; success: boolean }> {
  const child = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null", stdout: "piped" })
    .spawn();
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stdout) {
    await Deno.stdout.write(chunk);
    output += decoder.decode(chunk, { stream: true });
  }
  return { output, success: (await child.status).success };
}

async function runCheck(): Promise<Outcome> {
  const { success } = await runDeno(["task", "check"]);
  return { passed: 0, failed: success ? 0 : 1 };
}

/** A stage that ends without a summary, or badly without a failed test, counts as one failure. */
async function runTests(...paths: string[]): Promise<Outcome> {
  const { output, success } = await runDeno(["test", "-A", "--no-check", ...paths]);
  const { passed, failed } = parseSummary(output) ?? { passed: 0, failed: 0 };
  const broken = !success || passed + failed === 0;
  return { passed, failed: broken ? Math.max(failed, 1) : failed };
}

async function main(): Promise<number> {
  const stages: [string, () => Promise<Outcome>][] = [
    ["format, lint, types, layers", runCheck],
    ["unit tests", () => runTests("src", "scripts")],
    ["tests on PostgreSQL and whole clusters", () => runTests("tests")],
  ];
  let passed = 0;
  let failed = 0;
  for (const [name, run] of stages) {
    console.log(`== ${name}`);
    const outcome = await run();
    passed += outcome.passed;
    failed += outcome.failed;
    if (outcome.failed) console.log(`== ${name}: ${outcome.failed} failed`);
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

if (import.meta.main) process.exit(await main());
