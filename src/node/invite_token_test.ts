import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { decodeToken, encodeToken, hashSecret, type InviteToken } from "./invite_token.ts";

const TOKEN: InviteToken = {
  cluster: "mmlite",
  inviter: "ams",
  urls: ["https://ams.example:7432", "https://[2001:db8::1]:7432"],
  authority: Buffer.alloc(32, 7).toString("base64url"),
  id: "0123456789abcdef",
  secret: Buffer.alloc(32, 9).toString("base64url"),
  expiresAt: new Date("2026-11-23T10:00:00Z"),
};

Deno.test("a token says what was put into it, in one word", () => {
  const text = encodeToken(TOKEN);
  assert.match(text, /^mmlite1_[A-Za-z0-9_-]+$/);
  assert.deepEqual(decodeToken(text), TOKEN);
});

Deno.test("a token that lost or changed a character is told from a whole one", () => {
  const text = encodeToken(TOKEN);
  const mangled = [
    text.slice(0, -1),
    text.slice(0, 40),
    text.slice(0, 50) + text.slice(51),
    `${text}x`,
    `${text.slice(0, 30)}\n${text.slice(30)}`,
    ...Array.from({ length: text.length - 8 }, (_, at) => replaceAt(text, at + 8)),
  ];
  for (const one of mangled) {
    assert.throws(() => decodeToken(one), { kind: "invalid_input", message: /missing or changed$/ });
  }
  assert.throws(() => decodeToken("mmlite1_"), /missing or changed$/);
  assert.throws(() => decodeToken("mmlite2_abc"), /another version/);
  assert.throws(() => decodeToken("s3cret"), (error: Error) => !error.message.includes("s3cret"));
});

Deno.test("a token that says something impossible is refused", () => {
  const wrong: Partial<InviteToken>[] = [
    { urls: [] },
    { urls: ["http://ams.example:7432"] },
    { inviter: "Ams" },
    { authority: "" },
    { id: "../../etc" },
    { secret: "short" },
  ];
  for (const part of wrong) {
    assert.throws(() => decodeToken(encodeToken({ ...TOKEN, ...part })), /does not say what it must$/);
  }
});

Deno.test("the hash of a secret is that of its bytes", () => {
  assert.equal(
    hashSecret(Buffer.from("abc").toString("base64url")),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

/** The text with the character at `at` replaced by the one that differs in its highest of six bits. */
function replaceAt(text: string, at: number): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return text.slice(0, at) + alphabet[alphabet.indexOf(text[at]) ^ 32] + text.slice(at + 1);
}
