import assert from "node:assert/strict";
import { join } from "node:path";
import { type ConfigSources, loadConfig, loadSettings } from "../config.ts";
import { configJsonSchema } from "./schema.ts";
import { getSetting, SETTINGS } from "./settings.ts";

const LEAST = { name: "ams", postgres: "postgres:///app", tables: ["public.*"] };
/** An environment in which no standard file exists. */
const BARE = { HOME: "/nowhere", XDG_CONFIG_HOME: "/nowhere" };

async function withFile(text: string, use: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const path = join(directory, "m.yaml");
    await Deno.writeTextFile(path, text);
    await use(path);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function valueAndOrigin(sources: ConfigSources, key: string): Promise<[unknown, string | undefined]> {
  const { settings, origins } = await loadSettings(sources);
  return [getSetting(settings, key), origins.get(key)];
}

Deno.test("the least configuration is completed by defaults", async () => {
  const env = { ...BARE, STATE_DIRECTORY: "/var/lib/private/mmlite:/other" };
  assert.deepEqual(await loadConfig({ flags: LEAST, env }), {
    node: { name: "ams", cluster: "mmlite" },
    postgres: { url: "postgres:///app" },
    listen: {
      peers: { address: { host: "127.0.0.1", port: 7432 }, advertise: null },
      api: { address: { host: "127.0.0.1", port: 7433 }, socket: null, token: null },
    },
    peers: [],
    tables: { include: ["public.*"], exclude: [] },
    state: "/var/lib/private/mmlite",
    insecure: false,
    compression: "auto",
    log: { level: "info", format: "text" },
  });
});

Deno.test("a node that nobody can dial advertises none, and is a peer without a URL", async () => {
  await withFile("listen: { peers: { advertise: none } }\npeers: [{ name: edge-9 }]", async (file) => {
    const { listen, peers } = await loadConfig({ flags: LEAST, env: BARE, file });
    assert.equal(listen.peers.advertise, "none");
    assert.deepEqual(peers, [{ name: "edge-9", url: null }]);
  });
});

Deno.test("a flag wins over a variable, that over the file, that over libpq's, that over nothing", async () => {
  await withFile("postgres: { url: postgres:///file }", async (file) => {
    const key = "postgres.url";
    const PG = { PGHOST: "/tmp", PGDATABASE: "pg" };
    const libpq = { ...BARE, ...PG, DATABASE_URL: "postgres:///libpq" };
    const env = { ...libpq, MMLITE_POSTGRES: "postgres:///variable" };
    const flags = { postgres: "postgres:///flag" };
    assert.deepEqual(await valueAndOrigin({ flags, env, file }, key), ["postgres:///flag", "--postgres"]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env, file }, key), [
      "postgres:///variable",
      "MMLITE_POSTGRES",
    ]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: libpq, file }, key), [
      "postgres:///file",
      `${file}:1:18`,
    ]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: libpq }, key), [
      "postgres:///libpq",
      "DATABASE_URL",
    ]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: { ...BARE, ...PG } }, key), [
      "postgres:///",
      "PGHOST, PGDATABASE",
    ]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: BARE }, key), [undefined, undefined]);
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: BARE }, "log.level"), ["info", "default"]);
  });
});

Deno.test("a URL and a file with it are two ways to say the same", async () => {
  await withFile("postgres: { url_file: secret }", async (file) => {
    const { settings, origins } = await loadSettings({ flags: LEAST, env: BARE, file });
    assert.deepEqual(settings.postgres, { url: "postgres:///app" });
    assert.equal(origins.has("postgres.url_file"), false);
    const flags = { ...LEAST, "postgres-file": "/x" };
    await assert.rejects(loadSettings({ flags, env: BARE }), {
      kind: "config",
      message: "Cannot use both postgres.url (--postgres) and postgres.url_file (--postgres-file)",
    });
    const secret = join(file, "..", "secret");
    await Deno.writeTextFile(secret, "postgres://app:secret@db/app\n", { mode: 0o600 });
    const { postgres } = await loadConfig({ flags: { ...LEAST, postgres: undefined }, env: BARE, file });
    assert.equal(postgres.url, "postgres://app:secret@db/app");
  });
});

Deno.test("MMLITE_CONFIG and the standard places are looked at when no file is named", async () => {
  await withFile("log: { level: debug }", async (file) => {
    const key = "log.level";
    assert.deepEqual(await valueAndOrigin({ flags: {}, env: { ...BARE, MMLITE_CONFIG: file } }, key), [
      "debug",
      `${file}:1:15`,
    ]);
    const home = join(file, "..");
    const standard = join(home, ".config/mmlite");
    await Deno.mkdir(standard, { recursive: true });
    await Deno.copyFile(file, join(standard, "mmlite.yaml"));
    assert.equal((await valueAndOrigin({ flags: {}, env: { HOME: home } }, key))[0], "debug");
    const XDG_CONFIG_HOME = join(home, ".config");
    assert.equal((await valueAndOrigin({ flags: {}, env: { XDG_CONFIG_HOME } }, key))[0], "debug");
  });
});

Deno.test("variables are read by the form of their setting", async () => {
  const env = {
    ...BARE,
    MMLITE_TABLES: 'a.*, b.c,d."e,f"',
    MMLITE_INSECURE: "1",
    MMLITE_NAME: "",
    MMLITE_API_SOCKET: "/x",
  };
  const { settings } = await loadSettings({ flags: {}, env });
  assert.deepEqual(settings.tables.include, ["a.*", "b.c", 'd."e,f"']);
  assert.equal(settings.insecure, true);
  assert.equal(settings.node.name, undefined);
  assert.equal(settings.listen.api.socket, "/x");
});

Deno.test("a wrong flag or variable is named", async () => {
  const wrong: [ConfigSources, RegExp][] = [
    [{ flags: { name: "Ams" }, env: BARE }, /^Cannot use --name "Ams": expected 1 to 40 lower-case/],
    [{ flags: { tables: ["public.*", "x"] }, env: BARE }, /^Cannot use --tables "x": expected SCHEMA.TABLE/],
    [{ flags: { listen: "7432" }, env: BARE }, /^Cannot use --listen "7432": expected HOST:PORT/],
    [{ flags: { "log-level": "loud" }, env: BARE }, /^Cannot use --log-level "loud": expected debug, info/],
    [{ flags: {}, env: { ...BARE, MMLITE_API: "x" } }, /^Cannot use MMLITE_API "x": expected HOST:PORT/],
    [
      { flags: {}, env: { ...BARE, MMLITE_INSECURE: "maybe" } },
      /^Cannot use MMLITE_INSECURE "maybe": expected true/,
    ],
  ];
  for (const [sources, message] of wrong) {
    await assert.rejects(loadSettings(sources), { kind: "config", message });
  }
});

Deno.test("a variable that means nothing is a warning, but not one that Kubernetes sets", async () => {
  const env = {
    ...BARE,
    MMLITE_LISTN: "x",
    MMLITE_SERVICE_HOST: "x",
    MMLITE_PORT_7432_TCP: "x",
    MMLITE_API_PORT: "x",
  };
  const { warnings } = await loadSettings({ flags: {}, env });
  assert.deepEqual(warnings, ["MMLITE_LISTN means nothing to mmlite; did you mean MMLITE_LISTEN?"]);
});

Deno.test("what is missing is said all at once, with the least command", async () => {
  await assert.rejects(loadConfig({ flags: {}, env: BARE }), {
    kind: "config",
    message:
      "Cannot run a node without node.name (--name), postgres.url (--postgres) and tables.include (--tables)",
    hint: /mmlite run --name ams --postgres postgres:\/\/\/app --tables 'public\.\*'/,
  });
  const flags = { ...LEAST, tables: undefined };
  await assert.rejects(loadConfig({ flags, env: BARE }), { message: /without tables.include \(--tables\)$/ });
});

Deno.test("cleartext beyond this machine needs --insecure", async () => {
  const flags = { ...LEAST, listen: "0.0.0.0:7432" };
  await assert.rejects(loadConfig({ flags, env: BARE }), {
    kind: "config",
    message: /^Cannot listen for peers on "0\.0\.0\.0:7432" \(--listen\): .*no TLS/,
    hint: /--insecure/,
  });
  const { listen, insecure } = await loadConfig({ flags: { ...flags, insecure: true }, env: BARE });
  assert.deepEqual([listen.peers.address.host, insecure], ["0.0.0.0", true]);
});

Deno.test("a control API beyond this machine needs a token", async () => {
  await withFile("listen: { api: { address: '[::]:7433' } }", async (file) => {
    await assert.rejects(loadConfig({ flags: LEAST, env: BARE, file }), {
      kind: "config",
      message: /^Cannot serve the control API on "\[::\]:7433" \(.*m.yaml:1:27\): .*no token/,
    });
    const token = join(file, "..", "token");
    await Deno.writeTextFile(token, "s3cret\n", { mode: 0o600 });
    const { listen } = await loadConfig({ flags: { ...LEAST, "token-file": token }, env: BARE, file });
    assert.equal(listen.api.token, "s3cret");
  });
});

Deno.test("names that would share a slot are refused", async () => {
  const peers = (...names: string[]) =>
    `peers: [${names.map((name) => `{ name: ${name}, url: "http://${name}:1" }`).join(", ")}]`;
  await withFile(peers("fra", "ams"), async (file) => {
    await assert.rejects(loadConfig({ flags: LEAST, env: BARE, file }), {
      message: 'Cannot use peer "ams": its name is that of this node',
    });
  });
  await withFile(peers("a-b", "a_b"), async (file) => {
    await assert.rejects(loadConfig({ flags: LEAST, env: BARE, file }), {
      message: 'Cannot use peer "a_b": its name is that of peer "a-b"',
    });
  });
});

Deno.test("the JSON Schema knows every key and no other", () => {
  interface Group {
    readonly properties?: Record<string, Group>;
    readonly additionalProperties?: boolean;
  }
  const schema = configJsonSchema() as Group;
  for (const { key } of SETTINGS) {
    let group: Group | undefined = schema;
    for (const part of key.split(".")) {
      assert.equal(group?.additionalProperties, false, key);
      group = group?.properties?.[part];
    }
    assert(group, key);
  }
});
