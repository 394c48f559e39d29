import assert from "node:assert/strict";
import { requireDuration } from "./duration.ts";

Deno.test("what is no duration is refused with the option's name", () => {
  assert.equal(requireDuration("30m", "--ttl"), 1800);
  assert.throws(() => requireDuration("1.5h", "--ttl"), {
    kind: "usage",
    message: 'Cannot use --ttl "1.5h": it is no duration',
  });
});
