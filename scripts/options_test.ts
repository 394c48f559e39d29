import assert from "node:assert/strict";
import { join } from "node:path";

const ROOT = join(import.meta.dirname!, "..");
/** Longer than any of them takes to begin, and less than any takes to do its work, milliseconds. */
const TIMEOUT_MS = 30_000;

/** The scripts that tasks of deno.json run, by the names of the tasks. */
async function readTasks(): Promise<{ name: string; script: string }[]> {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  return Object.entries(tasks as Record<string, string>).flatMap(([name, command]) => {
    const script = /^deno run -A (scripts\/\w+\.ts)$/.exec(command)?.[1];
    return script === undefined ? [] : [{ name, script }];
  });
}

async function run(script: string, option: string) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--quiet", join(ROOT, script), option],
    signal: AbortSignal.timeout(TIMEOUT_MS),
    stdin: "null",
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

Deno.test("every task tells its usage, and in one line that it does not know an option", async () => {
  const tasks = await readTasks();
  assert.ok(tasks.length > 15);
  for (const { name, script } of tasks) {
    const [help, unknown] = await Promise.all([run(script, "--help"), run(script, "--no-such-option")]);
    assert.deepEqual([help.code, help.err], [0, ""], name);
    assert.ok(help.out.startsWith(`\`deno task ${name}`), `${name}: ${help.out}`);
    assert.deepEqual(
      [unknown.code, unknown.out, unknown.err],
      [2, "", `Unknown option '--no-such-option'; --help tells which there are\n`],
      name,
    );
  }
});
