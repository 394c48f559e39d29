import assert from "node:assert/strict";
import { describeTarget, parsePostgresUrl } from "./target.ts";
import type { MmliteError } from "../errors.ts";

const HOME = { HOME: "/nonexistent" };

Deno.test("a URL is read with its percent-encoding", async () => {
  const target = await parsePostgresUrl("postgres://u:p%40ss@h:5433/db?sslmode=require", HOME);
  assert.deepEqual(target, {
    host: "h",
    port: 5433,
    database: "db",
    user: "u",
    password: "p@ss",
    ssl: { rejectUnauthorized: false },
  });
});

Deno.test("a directory as host means the unix socket, without TLS", async () => {
  const target = await parsePostgresUrl("postgres:///app?host=/run/postgresql&user=x&sslmode=require", HOME);
  assert.equal(describeTarget(target), "app at /run/postgresql:5432");
  assert.equal(target.ssl, false);
});

Deno.test("key=value text is read with its quotes", async () => {
  const target = await parsePostgresUrl(String.raw`host=::1 dbname='a b' user=x password='it\'s'`, HOME);
  assert.equal(describeTarget(target), "a b at [::1]:5432");
  assert.equal(target.password, "it's");
});

Deno.test("the environment completes what a URL leaves out", async () => {
  const env = { ...HOME, PGHOST: "db", PGPORT: "6000", PGUSER: "app", PGPASSWORD: "s", PGDATABASE: "d" };
  const target = await parsePostgresUrl(undefined, env);
  assert.deepEqual(target, { host: "db", port: 6000, database: "d", user: "app", password: "s", ssl: false });
  const fromUrl = await parsePostgresUrl(undefined, { ...env, DATABASE_URL: "postgres://x@y/z" });
  assert.equal(describeTarget(fromUrl), "z at y:6000");
  assert.equal(fromUrl.user, "x");
});

Deno.test("the password file is searched by host, port, database and user", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "# comment\nh:5432:other:u:no\nh:*:d\\:b:u:se\\:cret\n*:*:*:*:last\n");
    await Deno.chmod(path, 0o600);
    const env = { PGPASSFILE: path };
    const passwordFor = async (url: string) => (await parsePostgresUrl(url, env)).password;
    assert.equal(await passwordFor("postgres://u@h/d%3Ab"), "se:cret");
    assert.equal(await passwordFor("postgres://w@h/d"), "last");
    await Deno.chmod(path, 0o644);
    await assert.rejects(passwordFor("postgres://u@h/d"), /others than its owner may read it/);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("what is malformed is named, and never the password", async () => {
  const cases: [string, RegExp][] = [
    ["mysql://u:hush@h/d", /must begin with "postgres:\/\/"/],
    ["postgres://u:hush@h:5x/d", /host or port is malformed/],
    ["postgres://u:hush@h:99999/d", /host or port is malformed/],
    ["postgres://u:hush@h/d?colour=red", /unknown parameter "colour"/],
    ["postgres://u:hush@a,b/d", /several hosts/],
    ["host=h port=0 password=hush", /port "0" is not a number/],
    ["host=h password=hush again", /break off at character/],
    ["host=h password=hush sslmode=maybe", /sslmode "maybe" is none of/],
    ["host=h password=hush sslmode=verify-ca", /needs sslrootcert/],
  ];
  for (const [url, message] of cases) {
    await assert.rejects(parsePostgresUrl(url, HOME), (error: MmliteError) => {
      assert.equal(error.kind, "config");
      assert.match(error.message, message);
      assert.doesNotMatch(`${error.message} ${error.stack} ${error.cause ?? ""}`, /hush/);
      return true;
    });
  }
});
