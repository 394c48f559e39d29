import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { X509Certificate } from "node:crypto";
import { TestAuthority } from "../../tests/support/certificates.ts";
import { isTrusted } from "./certificate.ts";

const authority = await TestAuthority.create();
const other = await TestAuthority.create();
const leaf = new X509Certificate((await authority.issueNode("b")).certificate);

/** The authority with a key on a curve that nobody knows. */
function withUnknownCurve(): X509Certificate {
  const der = Buffer.from(new X509Certificate(authority.certificate).raw);
  const prime256v1 = Buffer.from("2a8648ce3d030107", "hex");
  der[der.indexOf(prime256v1) + prime256v1.length - 1] = 0x7f;
  return new X509Certificate(der);
}

Deno.test("a chain is trusted under its authority, and under no other", () => {
  assert.equal(isTrusted([leaf], [other.certificate, authority.certificate]), true);
  assert.equal(isTrusted([leaf], [other.certificate]), false);
  assert.equal(isTrusted([], [authority.certificate]), false);
});

Deno.test("a chain with a key that cannot be read is not trusted, and does no harm", () => {
  assert.equal(isTrusted([leaf, withUnknownCurve()], [other.certificate]), false);
  assert.equal(isTrusted([leaf, withUnknownCurve()], [authority.certificate]), true);
});
