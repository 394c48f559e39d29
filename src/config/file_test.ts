import assert from "node:assert/strict";
import { join } from "node:path";
import { MmliteError } from "../errors.ts";
import { parseConfigFile, readConfigFile } from "./file.ts";

function complaint(text: string): { message: string; hint: string } {
  try {
    parseConfigFile(text, "/etc/m.yaml");
  } catch (error) {
    assert(error instanceof MmliteError);
    assert.equal(error.kind, "config");
    return { message: error.message, hint: error.hint };
  }
  throw new Error(`No complaint about ${JSON.stringify(text)}`);
}

Deno.test("an unknown key is named with its place and the key meant", () => {
  assert.deepEqual(complaint("node:\n  nam: ams\n"), {
    message: 'Cannot use /etc/m.yaml:2:3: unknown key "node.nam"',
    hint: 'Did you mean "name"?',
  });
  assert.deepEqual(complaint("# a comment\nnodes: { name: ams }\n"), {
    message: 'Cannot use /etc/m.yaml:2:1: unknown key "nodes"',
    hint: 'Did you mean "node"?',
  });
});

Deno.test("a key in the wrong place is found where it belongs", () => {
  assert.deepEqual(complaint("name: ams"), {
    message: 'Cannot use /etc/m.yaml:1:1: unknown key "name"',
    hint: 'Did you mean "node.name"?',
  });
});

Deno.test("a key like no other gets the known ones listed", () => {
  assert.equal(complaint("listen: { peers: { zone: x } }").hint, "Known keys here: address, advertise, tls");
  assert.deepEqual(complaint("peers:\n  - { name: fra, url: http://fra:1, zone: x }"), {
    message: 'Cannot use /etc/m.yaml:2:37: unknown key "peers.0.zone"',
    hint: "Known keys here: name, url",
  });
  assert.deepEqual(complaint("listen: { peers: { tls: { certificate: x } } }"), {
    message: 'Cannot use /etc/m.yaml:1:27: unknown key "listen.peers.tls.certificate"',
    hint: "Known keys here: cert, key, ca, ca_key",
  });
});

Deno.test("a wrong type is named with the place of the value", () => {
  const wrong: [string, string][] = [
    ["node:\n  name: 7\n", "2:9: node.name is wrong, expected text, not a number"],
    ["node: ams", "1:7: node is wrong, expected a group of keys, not text"],
    ["tables:\n", "1:8: tables is wrong, expected a group of keys, not nothing"],
    ["tables: { include: public.* }", "1:20: tables.include is wrong, expected a list, not text"],
    ["insecure: yes", "1:11: insecure is wrong, expected true or false, not text"],
    ["peers:\n  - url: http://fra:7432", "2:5: peers.0.name is wrong, missing"],
    ["- a\n- b", "1:1: expected a group of keys, not a list"],
    ["listen: { peers: { tls: on } }", "1:25: listen.peers.tls is wrong, expected off or a group of files"],
    [
      "listen: { peers: { tls: { cert: 7 } } }",
      "1:33: listen.peers.tls.cert is wrong, expected text, not a number",
    ],
    ["log: { level: loud }", "1:15: log.level is wrong, expected debug, info, warning or error"],
  ];
  for (const [text, expected] of wrong) {
    assert.equal(complaint(text).message, `Cannot use /etc/m.yaml:${expected}`);
  }
});

Deno.test("a value of the right type is checked too", () => {
  const wrong: [string, RegExp][] = [
    ["node: { name: Ams }", /1:15: node.name is wrong, expected 1 to 40 lower-case letters/],
    [`node: { name: ${"a".repeat(41)} }`, /expected 1 to 40/],
    ["node: { name: -a }", /beginning with a letter or digit/],
    ["listen: { api: { address: 7433 } }", /expected text, not a number/],
    ["listen: { api: { address: ':7433' } }", /expected HOST:PORT/],
    ["tables: { include: ['*'] }", /1:21: tables.include.0 is wrong, expected SCHEMA.TABLE/],
    ["tables: { include: [a.b.c] }", /expected SCHEMA.TABLE/],
    ["tables: { include: [public.] }", /expected SCHEMA.TABLE/],
    ["peers: [{ name: fra, url: 'fra:7432' }]", /expected an https or http URL/],
    ["peers: [{ name: fra, url: 'http://u:p@fra:7432' }]", /of host and port only/],
    ["peers: [{ name: fra, url: 'http://fra:7432/x' }]", /of host and port only/],
  ];
  for (const [text, expected] of wrong) assert.match(complaint(text).message, expected);
});

Deno.test("policies are checked, and divergence must be said", () => {
  const wrong: [string, RegExp, RegExp?][] = [
    ["conflicts: { default: newest }", /1:23: conflicts.default is wrong, expected last_update_wins, first_/],
    ["conflicts: { keep: 30 }", /1:20: conflicts.keep is wrong, expected text, not a number/],
    ["conflicts: { keep: 1w }", /1:20: conflicts.keep is wrong, expected a number and its unit/],
    ["conflicts: { keeps: 1d }", /1:14: unknown key "conflicts.keeps"/, /Did you mean "keep"\?/],
    [
      "conflicts: { tables: { config: { policy: error } } }",
      /1:24: "config" is wrong, expected SCHEMA.TABLE/,
    ],
    [
      "conflicts: { tables: { a.b: { policy: error, typs: {} } } }",
      /1:46: unknown key "conflicts.tables.a.b.typs"/,
      /Did you mean "types"\?/,
    ],
    [
      "conflicts: { tables: { a.b: { policy: error, types: { update_mising: error } } } }",
      /1:55: unknown key "conflicts.tables.a.b.types.update_mising"/,
      /Did you mean "update_missing"\?/,
    ],
    [
      "conflicts: { default: apply_remote }",
      /1:23: conflicts.default is wrong, nodes could come to hold different rows under apply_remote; say allow_div/,
    ],
    [
      "conflicts:\n  tables:\n    a.b: { policy: error, types: { update_exists: keep_local } }",
      /3:10: conflicts.tables.a.b is wrong, nodes could come to hold different rows under keep_local/,
    ],
  ];
  for (const [text, message, hint = /./] of wrong) {
    const said = complaint(text);
    assert.match(said.message, message);
    assert.match(said.hint, hint);
  }
  parseConfigFile("conflicts: { default: error, tables: { a.b: { policy: last_update_wins } } }", "m.yaml");
  const diverging = "{ policy: keep_local, allow_divergence: true }";
  parseConfigFile(
    `conflicts: { allow_divergence: true, default: apply_remote, tables: { a.b: ${diverging} } }`,
    "m",
  );
});

Deno.test("the first complaint of several is the one printed", () => {
  assert.match(complaint("log: { leve: info }\nnode: { nam: ams }").message, /1:8: unknown key "log.leve"/);
});

Deno.test("malformed YAML is named with its place", () => {
  assert.match(complaint("node: {\nname: ams\n").message, /^Cannot read \/etc\/m.yaml:\d+:\d+: /);
  assert.match(complaint("node: {}\nnode: {}\n").message, /m.yaml:2:1: Map keys must be unique/);
  assert.match(complaint("node: {}\n---\nnode: {}\n").message, /m.yaml:2:1: .*multiple documents/);
  assert.match(complaint("\tnode: 1").message, /m.yaml:1:1: /);
  const bomb = ["a: &a [x,x,x,x,x,x,x,x,x]"];
  for (const [name, of] of ["ba", "cb", "dc", "ed"]) bomb.push(`${name}: &${name} [${`*${of},`.repeat(9)}]`);
  assert.match(complaint(bomb.join("\n")).message, /Cannot read \/etc\/m.yaml:1:1: Excessive alias count/);
});

Deno.test("an empty file is a file without settings", () => {
  for (const text of ["", "# nothing\n", "---\n"]) {
    assert.deepEqual(parseConfigFile(text, "m.yaml").settings, {});
  }
});

Deno.test("paths are relative to the file, and every value knows its place", () => {
  const layer = parseConfigFile("state: data\nlisten:\n  api: { token_file: token }\n", "/etc/mmlite/m.yaml");
  assert.deepEqual(layer.settings, {
    state: "/etc/mmlite/data",
    listen: { api: { token_file: "/etc/mmlite/token" } },
  });
  assert.equal(layer.originOf("listen.api.token_file"), "/etc/mmlite/m.yaml:3:22");
});

Deno.test("a file that cannot be read is named", async () => {
  await assert.rejects(readConfigFile("/nowhere/m.yaml"), {
    kind: "config",
    message: /^Cannot read configuration file "\/nowhere\/m.yaml": ENOENT/,
  });
});

Deno.test("the example file is right", async () => {
  const { settings } = await readConfigFile(join(import.meta.dirname!, "../../contrib/mmlite.yaml"));
  assert.deepEqual(settings.node, { name: "ams", cluster: "mmlite" });
  assert.deepEqual(settings.peers, [{ name: "fra", url: "https://fra.example:7432" }, { name: "edge-9" }]);
  assert.deepEqual(settings.conflicts?.tables?.["public.config"]?.types, { update_missing: "error" });
});

Deno.test("the commented keys of the example file are right as well", async () => {
  const path = join(import.meta.dirname!, "../../contrib/mmlite.yaml");
  const text = (await Deno.readTextFile(path)).replaceAll(/^( +)# ([a-z_]+: \/?[\w/.-]+(?: |$))/gm, "$1$2");
  const { settings } = parseConfigFile(text, "/etc/mmlite/mmlite.yaml");
  assert.deepEqual(settings.listen?.peers?.tls, {
    cert: "/var/lib/mmlite/tls/node.pem",
    key: "/var/lib/mmlite/tls/node-key.pem",
    ca: "/var/lib/mmlite/tls/ca.pem",
    ca_key: "/var/lib/mmlite/tls/ca-key.pem",
  });
  assert.equal(settings.postgres?.url_file, "/etc/mmlite/postgres-url");
  assert.equal(settings.listen?.api?.socket, "/run/mmlite/mmlite.sock");
  assert.equal(settings.listen?.api?.token_file, "/etc/mmlite/token");
});
