import assert from "node:assert/strict";
import { join } from "node:path";
import { maskPassword, readSecretFile } from "./secret.ts";

Deno.test("a connection string is masked, malformed or not", () => {
  const masked: [string, string][] = [
    ["postgres://app:secret@db:5432/app", "postgres://app:***@db:5432/app"],
    ["postgresql://:secret@/app", "postgresql://:***@/app"],
    ["postgres://app:se/cr@et@db/app", "postgres://app:***@db/app"],
    ["postgres:///app?user=a&password=secret&host=/tmp", "postgres:///app?user=a&password=***&host=/tmp"],
    ["host=db password=secret user=a", "host=db password=*** user=a"],
    ["host=db password = 'sec ret\\' x' user=a", "host=db password = *** user=a"],
    ["postgres:///app?sslpassword=secret", "postgres:///app?sslpassword=***"],
  ];
  for (const [text, expected] of masked) assert.equal(maskPassword(text), expected);
});

Deno.test("a connection string without a password stays as it is", () => {
  for (
    const text of ["postgres:///app?host=/var/run/postgresql", "postgres://app@db:5432/app", "dbname=app"]
  ) {
    assert.equal(maskPassword(text), text);
  }
});

Deno.test("a secret is the first line of a file that not everybody may read", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = join(directory, "token");
    await Deno.writeTextFile(path, "  s3cret \r\nsecond line\n", { mode: 0o640 });
    assert.equal(await readSecretFile(path), "s3cret");
    await Deno.chmod(path, 0o644);
    await assert.rejects(readSecretFile(path), { kind: "config", hint: `Run: chmod o-rwx '${path}'` });
    await Deno.writeTextFile(path, "\nsecret\n");
    await Deno.chmod(path, 0o600);
    await assert.rejects(readSecretFile(path), { message: /its first line is empty/ });
    await assert.rejects(readSecretFile(join(directory, "none")), {
      message: /Cannot read secret file ".*none"/,
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
