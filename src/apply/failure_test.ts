import assert from "node:assert/strict";
import { toLsn } from "../lsn.ts";
import { applyError } from "./failure.ts";

const CONTEXT = { origin: "ams", commitLsn: toLsn(0x15d6f88n), doing: 'insert into "public.user"' };

/** An error as the server sends it. */
function serverError(code: string, message: string, fields: Record<string, string> = {}): Error {
  return Object.assign(new Error(message), { code, severity: "ERROR", ...fields });
}

Deno.test("a violated constraint is named with its SQLSTATE and the transaction, without values", () => {
  const error = applyError(
    serverError("23505", 'duplicate key value violates unique constraint "user_email_key"', {
      detail: "Key (email)=(private@example.com) already exists.",
      schema: "public",
      table: "user",
      constraint: "user_email_key",
    }),
    CONTEXT,
  );
  assert.equal(error.kind, "apply_failed");
  assert.equal(
    error.message,
    'Cannot insert into "public.user" in the transaction of "ams" at 0/15D6F88: a duplicate key of "public.user" ' +
      'was refused by "user_email_key" (SQLSTATE 23505)',
  );
});

Deno.test("a refused value is not quoted", () => {
  const error = applyError(serverError("22P02", 'invalid input syntax for type integer: "private"'), CONTEXT);
  assert.equal(error.kind, "apply_failed");
  assert.doesNotMatch(error.message, /private/);
});

Deno.test("every error gets the kind that says what to do", () => {
  const kinds: [code: string, kind: string, fields?: Record<string, string>][] = [
    ["40P01", "transient"],
    ["40001", "transient"],
    ["55P03", "transient"],
    ["53000", "transient"],
    ["53100", "transient"],
    ["53200", "transient"],
    ["53999", "transient"],
    ["58030", "transient"],
    ["57P01", "unreachable"],
    ["08006", "unreachable"],
    ["MM001", "transient"],
    ["42P10", "schema_mismatch"],
    ["0A000", "transient", { routine: "RevalidateCachedQuery" }],
    ["0A000", "apply_failed", { routine: "heap_truncate_check_FKs" }],
    ["42703", "schema_mismatch"],
    ["42P01", "schema_mismatch"],
    ["42501", "permission"],
    ["42501", "permission", { routine: "check_enable_rls" }],
    ["23502", "apply_failed"],
    ["XX000", "apply_failed"],
  ];
  for (const [code, kind, fields] of kinds) {
    const error = applyError(serverError(code, "it failed", fields), CONTEXT);
    assert.equal(error.kind, kind, code);
  }
  const hidden = applyError(serverError("42501", "it failed", { routine: "check_enable_rls" }), CONTEXT);
  assert.match(hidden.hint, /BYPASSRLS/);
});

Deno.test("a lost connection says what was under way", () => {
  const error = applyError(new Error("Connection terminated unexpectedly"), CONTEXT);
  assert.equal(error.kind, "unreachable");
  assert.match(
    error.message,
    /^Cannot insert into "public\.user" in the transaction of "ams" at 0\/15D6F88: /,
  );
});
