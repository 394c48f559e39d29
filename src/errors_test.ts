import assert from "node:assert/strict";
import {
  type Disposition,
  ERROR_POLICY,
  type ErrorKind,
  isErrorKind,
  MmliteError,
  toMmliteError,
} from "./errors.ts";

const KINDS = Object.keys(ERROR_POLICY) as ErrorKind[];

function kindsThat(disposition: Disposition): ErrorKind[] {
  return KINDS.filter((kind) => new MmliteError(kind, "Cannot").disposition === disposition);
}

Deno.test("what can heal by itself is retried, a strange identity is fenced, all else waits for an operator", () => {
  assert.deepEqual(kindsThat("retry"), [
    "unreachable",
    "untrusted",
    "transient",
    "copying",
    "timeout",
    "protocol",
    "aborted",
    "internal",
  ]);
  assert.deepEqual(kindsThat("fence"), ["fenced"]);
  assert.equal(kindsThat("block").length, KINDS.length - 9);
});

Deno.test("every kind has an error status, a failing exit code and a remedy in the form of messages", () => {
  for (const kind of KINDS) {
    const { httpStatus, exitCode, title, hint } = ERROR_POLICY[kind];
    assert(httpStatus >= 400 && httpStatus < 600, kind);
    assert(exitCode > 0 && exitCode < 128, kind);
    for (const text of [title, hint]) assert.match(text, /^[A-Z].*[^.]$/, kind);
  }
});

Deno.test("an error's hint is its own, or else its kind's", () => {
  assert.equal(new MmliteError("conflict", "Cannot", { hint: "Do this" }).hint, "Do this");
  assert.equal(new MmliteError("conflict", "Cannot").hint, ERROR_POLICY.conflict.hint);
});

Deno.test("toMmliteError leaves ours as they are and keeps others as the cause", () => {
  const ours = new MmliteError("fenced", "Cannot");
  assert.equal(toMmliteError(ours), ours);
  const foreign = new TypeError("x is not a function");
  for (const [thrown, message] of [[foreign, foreign.message], ["text", "text"], [undefined, "undefined"]]) {
    const error = toMmliteError(thrown);
    assert.equal(error.kind, "internal");
    assert.equal(error.message, message);
    assert.equal(error.cause, thrown);
  }
});

Deno.test("isErrorKind knows the kinds and no inherited names", () => {
  for (const kind of KINDS) assert(isErrorKind(kind));
  for (const text of ["", "toString", "__proto__", "Fenced"]) assert(!isErrorKind(text), text);
});
