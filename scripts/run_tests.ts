/**
 * `deno task test`: the checks, the unit tests, then the tests on real PostgreSQL servers and whole clusters, then those
 * with containers.
 *
 * Every stage runs, so that one report tells everything. The last line is `N passed, N failed, N skipped`; the
 * exit code is 1 if a stage failed or ran no test.
 */
import process from "node:process";
import { runContainers } from "./containers.ts";
import { formatOutcome, type Outcome, runDeno, runTests } from "./test_outcome.ts";

async function runCheck(): Promise<Outcome> {
  const { success } = await runDeno(["task", "check"]);
  return { passed: 0, failed: success ? 0 : 1, skipped: 0 };
}

async function main(): Promise<number> {
  const stages: [string, () => Promise<Outcome>][] = [
    ["format, lint, types, layers", runCheck],
    ["unit tests", () => runTests(["--no-check", "src", "scripts"])],
    ["tests on PostgreSQL and whole clusters", () => runTests(["--no-check", "tests"])],
    ["tests with containers", runContainers],
  ];
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const [name, run] of stages) {
    console.log(`== ${name}`);
    const outcome = await run();
    for (const key of ["passed", "failed", "skipped"] as const) sum[key] += outcome[key];
    if (outcome.failed) console.log(`== ${name}: ${outcome.failed} failed`);
  }
  console.log(formatOutcome(sum));
  return sum.failed ? 1 : 0;
}

if (import.meta.main) process.exit(await main());
