import assert from "node:assert/strict";
import { parseSummary } from "./test_outcome.ts";

Deno.test("the closing line of deno test is read, coloured or not, with steps and ignored tests", () => {
  assert.deepEqual(parseSummary("ok | 9 passed | 0 failed (27s)\n"), { passed: 9, failed: 0, skipped: 0 });
  assert.deepEqual(
    parseSummary("x\n\x1b[0m\x1b[31mFAILED\x1b[0m | 12 passed (1 step) | 3 failed | 1 ignored (2s)\n\nerror"),
    { passed: 12, failed: 3, skipped: 1 },
  );
  assert.equal(parseSummary("error: Type checking failed.\n"), undefined);
});

Deno.test("a test that prints a summary of its own does not count", () => {
  const output = "ok | 1 passed | 0 failed\nsome test ... ok\nok | 5 passed | 0 failed (1s)\n";
  assert.deepEqual(parseSummary(output), { passed: 5, failed: 0, skipped: 0 });
});
