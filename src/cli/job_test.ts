import assert from "node:assert/strict";
import type { Job } from "../api/job_schemas.ts";
import { exitCodeOf, requireResult } from "./job.ts";

Deno.test("a comparison ends with 1 only where something differs", () => {
  assert.deepEqual(
    [exitCodeOf("equal", ""), exitCodeOf("differs", ""), exitCodeOf("undecided", "")],
    [0, 1, 75],
  );
  const failed = ["unreachable", "refused", "conflict", "transient", "permission", "of a later release"];
  assert.deepEqual(failed.map((kind) => exitCodeOf("failed", kind)), [69, 69, 69, 75, 77, 70]);
});

Deno.test("a job that was cancelled has no result, and may be begun again", () => {
  const job = { id: "7", type: "copy", state: "cancelled", error: null, result: null } as unknown as Job;
  assert.throws(() => requireResult(job, "mmlite copy"), {
    kind: "aborted",
    message: "Cannot tell what came of job 7: it is cancelled",
    hint: "Run `mmlite copy` again",
  });
});
