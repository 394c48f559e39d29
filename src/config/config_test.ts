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
      peers: { address: { host: "127.0.0.1", port: 7432 }, advertise: null, tls: null },
      api: { address: { host: "127.0.0.1", port: 7433 }, socket: null, token: null },
    },
    peers: [],
    tables: { include: ["public.*"], exclude: [] },
    conflicts: {
      default: { policy: "last_update_wins", types: {} },
      isDefault: true,
      tables: [],
      keepSeconds: 2_592_000,
      onError: "block",
      maxClockWaitMs: 10_000,
      consistency: "eventual",
    },
    state: "/var/lib/private/mmlite",
    insecure: false,
    limits: { warnSlotWal: 10 * 1024 ** 3, warnSlotAge: 6 * 3600, maxSlotWal: null, maxSlotAge: null },
    compression: "auto",
    log: { level: "info", format: "text" },
  });
});

Deno.test("limits are amounts of bytes, durations, or off", async () => {
  const flags = { ...LEAST, "max-slot-wal": "20GB", "max-slot-age": "7d", "warn-slot-wal": "off" };
  const { limits } = await loadConfig({ flags, env: BARE });
  assert.deepEqual(limits, {
    ...{ warnSlotWal: null, warnSlotAge: 6 * 3600, maxSlotWal: 20 * 1024 ** 3, maxSlotAge: 7 * 86_400 },
  });
  await assert.rejects(
    loadConfig({ flags: { ...LEAST, "max-slot-wal": "20" }, env: BARE }),
    {
      message:
        'Cannot use --max-slot-wal "20": expected a number and its unit, such as 512MB, 20MiB or 10GB, or off',
    },
  );
});

Deno.test("the bound of waiting for clocks is a duration", async () => {
  const { conflicts } = await loadConfig({ flags: { ...LEAST, "max-clock-wait": "2m" }, env: BARE });
  assert.equal(conflicts.maxClockWaitMs, 120_000);
  await assert.rejects(
    loadConfig({ flags: { ...LEAST, "max-clock-wait": "10" }, env: BARE }),
    {
      message: 'Cannot use --max-clock-wait "10": expected a number and its unit, such as 90s, 30m, 1h or 7d',
    },
  );
});

Deno.test("a node that nobody can dial advertises none, and is a peer without a URL", async () => {
  await withFile("listen: { peers: { advertise: none } }\npeers: [{ name: edge-9 }]", async (file) => {
    const { listen, peers } = await loadConfig({ flags: LEAST, env: BARE, file });
    assert.equal(listen.peers.advertise, "none");
    assert.deepEqual(peers, [{ name: "edge-9", url: null }]);
  });
});

Deno.test("what cannot be applied may go to quarantine by itself", async () => {
  await withFile("conflicts: { on_error: quarantine }", async (file) => {
    const onError = async (flags: ConfigSources["flags"] = {}) =>
      (await loadConfig({ flags: { ...LEAST, ...flags }, env: BARE, file })).conflicts.onError;
    assert.equal(await onError(), "quarantine");
    assert.equal(await onError({ "on-error": "block" }), "block");
    await assert.rejects(onError({ "on-error": "skip" }), {
      kind: "config",
      message: /^Cannot use --on-error "skip": /,
    });
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

Deno.test("policies come from the file, and how long conflicts are kept from a flag too", async () => {
  const tables =
    '{ public.config: { policy: error }, a."b.c": { policy: error, types: { update_missing: error } } }';
  await withFile(`conflicts: { default: error, keep: 1d, tables: ${tables} }`, async (file) => {
    const flags = { ...LEAST, "keep-conflicts": "90s" };
    const { conflicts } = await loadConfig({ flags, env: BARE, file });
    assert.deepEqual(conflicts, {
      default: { policy: "error", types: {} },
      isDefault: false,
      tables: [
        { schema: "public", name: "config", policy: { policy: "error", types: {} } },
        { schema: "a", name: "b.c", policy: { policy: "error", types: { update_missing: "error" } } },
      ],
      keepSeconds: 90,
      onError: "block",
      maxClockWaitMs: 10_000,
      consistency: "eventual",
    });
  });
  await withFile(
    'conflicts: { tables: { a.b: { policy: error }, a."b": { policy: error } } }',
    async (file) => {
      await assert.rejects(loadConfig({ flags: LEAST, env: BARE, file }), {
        kind: "config",
        message: /^Cannot use two policies for a\."b" \(.*m\.yaml:1:22\)$/,
      });
    },
  );
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
    message:
      'Cannot listen for peers on "0.0.0.0:7432" (--listen): other machines can reach it, and there is no certificate ' +
      "to speak TLS with",
    hint: /mmlite cert ca.*mmlite cert issue NAME.*--insecure/,
  });
  const { listen, insecure } = await loadConfig({ flags: { ...flags, insecure: true }, env: BARE });
  assert.deepEqual([listen.peers.address.host, insecure], ["0.0.0.0", true]);
});

Deno.test("files mean TLS, wherever they are named; what is not named is in the state directory", async () => {
  const text = "state: state\nlisten: { peers: { address: 0.0.0.0:7432, tls: { cert: c.pem, ca: ca.pem } } }";
  await withFile(text, async (file) => {
    const directory = join(file, "..");
    const flags = { ...LEAST, "tls-ca": "/x/ca.pem" };
    const { listen } = await loadConfig({ flags, env: BARE, file });
    assert.deepEqual(listen.peers.tls, {
      cert: join(directory, "c.pem"),
      key: join(directory, "state/tls/node-key.pem"),
      ca: "/x/ca.pem",
      caKey: null,
    });
    assert.deepEqual(
      await valueAndOrigin({ flags, env: BARE, file }, "listen.peers.tls.cert"),
      [join(directory, "c.pem"), `${file}:2:56`],
    );
    await assert.rejects(loadConfig({ flags: { ...flags, insecure: true }, env: BARE, file }), {
      kind: "config",
      message: /^Cannot use both listen\.peers\.tls\..* and insecure \(--insecure\)$/,
    });
  });
});

Deno.test("files in the state directory mean TLS, unless it is off; the CA's key is found beside them", async () => {
  await withFile("listen: { peers: { tls: off } }", async (off) => {
    const state = join(off, "..");
    const flags = { ...LEAST, state };
    const tls = async (more: Record<string, string | boolean>, file?: string) =>
      (await loadConfig({ flags: { ...flags, ...more }, env: BARE, file })).listen.peers.tls;
    assert.equal(await tls({}), null);
    await Deno.mkdir(join(state, "tls"));
    await Deno.writeTextFile(join(state, "tls/ca.pem"), "");
    const place = (name: string) => join(state, "tls", name);
    const files = { cert: place("node.pem"), key: place("node-key.pem"), ca: place("ca.pem"), caKey: null };
    assert.deepEqual(await tls({}), files);
    await Deno.writeTextFile(place("ca-key.pem"), "");
    assert.deepEqual(await tls({ listen: "0.0.0.0:1" }), { ...files, caKey: place("ca-key.pem") });
    assert.equal((await tls({ "tls-ca": files.ca }))?.caKey, place("ca-key.pem"), "the same place, by name");
    assert.equal((await tls({ "tls-ca": "/x/ca.pem" }))?.caKey, null, "that key is another CA's");
    assert.equal(await tls({ insecure: true }), null);
    assert.equal(await tls({}, off), null);
    await assert.rejects(tls({ listen: "0.0.0.0:1" }, off), {
      message: /other machines can reach it, and TLS is off \(.*m\.yaml:1:25\)$/,
    });
    assert.equal(await tls({ listen: "0.0.0.0:1", insecure: true }, off), null);
  });
});

Deno.test("a peer is dialled with TLS, on loopback, or where cleartext is allowed", async () => {
  const load = (url: string, more: Record<string, string | boolean> = {}) =>
    withFile(`peers: [{ name: fra, url: "${url}" }]`, async (file) => {
      await loadConfig({ flags: { ...LEAST, ...more }, env: BARE, file });
    });
  const tls = { "tls-cert": "/x/node.pem" };
  await load("http://127.0.0.1:1");
  await load("http://[::1]:1");
  await load("http://fra:1", { insecure: true });
  await load("https://fra:1", tls);
  await load("http://localhost:1", tls);
  const refused = (url: string, message: RegExp, more?: Record<string, string | boolean>) =>
    assert.rejects(load(url, more), { kind: "config", message });
  await refused(
    "http://fra:1",
    /"http:\/\/fra:1" as a peer's URL: .*cleartext, and other machines could read/,
  );
  await refused("http://fra:1", /cleartext, and this node speaks TLS$/, tls);
  await refused("https://127.0.0.1:1", /this node has no certificate/);
  await refused("https://fra:1", /this node has no certificate/, { insecure: true });
});

Deno.test("what is advertised must be what the peer port speaks", async () => {
  const advertise = async (url: string, more: Record<string, string>) =>
    (await loadConfig({ flags: { ...LEAST, ...more, advertise: url }, env: BARE })).listen.peers.advertise;
  const tls = { "tls-cert": "/x/node.pem" };
  assert.equal(await advertise("https://ams:1", tls), "https://ams:1");
  assert.equal(await advertise("none", tls), "none");
  await assert.rejects(advertise("http://ams:1", tls), { message: /the peer port speaks TLS$/ });
  await assert.rejects(advertise("https://ams:1", {}), { message: /the peer port speaks cleartext$/ });
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
    /** What may stand in the place of a group, and the group. */
    readonly anyOf?: readonly Group[];
  }
  const schema = configJsonSchema() as Group;
  for (const { key } of SETTINGS) {
    let group: Group | undefined = schema;
    for (const part of key.split(".")) {
      assert.equal(group?.additionalProperties, false, key);
      group = group?.properties?.[part];
      group = group?.anyOf?.find(({ properties }) => properties) ?? group;
    }
    assert(group, key);
  }
});
