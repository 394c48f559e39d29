/** `mmlite cert` as people meet it: what it writes, prints and refuses. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { TestAuthority } from "./support/certificates.ts";
import { type CommandResult, runMmlite } from "./support/mmlite.ts";
import { removeScratch, scratchBase } from "./support/scratch.ts";

interface World {
  readonly directory: string;
  /** Runs mmlite in the directory, with `state` in it as state directory. */
  run(...args: string[]): Promise<CommandResult>;
  /** The same, which must succeed; what it printed. */
  ok(...args: string[]): Promise<string>;
}

async function inWorld(test: (world: World) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-cert-" });
  const env = { XDG_CONFIG_HOME: directory, STATE_DIRECTORY: join(directory, "state") };
  const run = (...args: string[]) => runMmlite(["cert", ...args], { env, cwd: directory });
  try {
    await test({
      directory,
      run,
      ok: async (...args) => {
        const { code, stdout, stderr } = await run(...args);
        assert.equal(code, 0, stderr);
        return stdout;
      },
    });
  } finally {
    await removeScratch(directory);
  }
}

async function modesIn(directory: string): Promise<Record<string, string>> {
  const modes: Record<string, string> = { ".": (await Deno.stat(directory)).mode!.toString(8).slice(-3) };
  for await (const { name } of Deno.readDir(directory)) {
    modes[name] = (await Deno.stat(join(directory, name))).mode!.toString(8).slice(-3);
  }
  return modes;
}

function assertRefused(
  { code, stdout, stderr }: CommandResult,
  { exit, says, hint }: { exit: number; says: RegExp; hint?: RegExp },
): void {
  assert.deepEqual([code, stdout], [exit, ""], stderr);
  assert.match(/^error: (.*)$/m.exec(stderr)![1], says);
  if (hint) assert.match(/^hint: (.*)$/m.exec(stderr)![1], hint);
}

Deno.test("a CA and a node's certificate are made where a node looks for them, for their owner alone", () =>
  inWorld(async ({ directory, ok, run }) => {
    const made = await ok("ca");
    const tls = join(directory, "state/tls");
    assert.match(made, /^\S+state\/tls\/ca\.pem +the CA's certificate: every node needs a copy$/m);
    assert.match(made, /^\S+state\/tls\/ca-key\.pem +its key: whoever has it can add nodes to the cluster$/m);
    assert.deepEqual(await modesIn(tls), { ".": "700", "ca.pem": "644", "ca-key.pem": "600" });

    const issued = await run("issue", "fra", "--san", "dns:fra.example,ip:192.0.2.7");
    assert.equal(issued.code, 0, issued.stderr);
    assert.match(issued.stdout, /^fra\/node\.pem .*\nfra\/node-key\.pem .*\nfra\/ca\.pem .*$/m);
    assert.match(issued.stderr, /^Put the three files into .* of node "fra"$/m);
    assert.deepEqual(await modesIn(join(directory, "fra")), {
      ".": "700",
      "node.pem": "644",
      "node-key.pem": "600",
      "ca.pem": "644",
    });
    assert.equal(
      await Deno.readTextFile(join(directory, "fra/ca.pem")),
      await Deno.readTextFile(join(tls, "ca.pem")),
    );

    const before = await Deno.readTextFile(join(tls, "ca-key.pem"));
    assertRefused(await run("ca"), {
      exit: 1,
      says: /ca-key\.pem": it exists$/,
      hint: /^Name another directory/,
    });
    assertRefused(await run("issue", "fra"), {
      exit: 1,
      says: /^Cannot write "fra\/node-key\.pem": it exists$/,
    });
    assert.equal(await Deno.readTextFile(join(tls, "ca-key.pem")), before);
  }));

Deno.test("config check looks at the certificate files, and makes none", () =>
  inWorld(async ({ directory, ok }) => {
    await ok("ca", "--cluster", "shop");
    await ok("issue", "fra", "--out", "fra");
    const check = (name: string, ...more: string[]) =>
      runMmlite(
        ["config", "check", "--name", name, "--cluster", "shop", "--postgres", "postgres:///app", ...more],
        {
          env: {
            XDG_CONFIG_HOME: directory,
            STATE_DIRECTORY: join(directory, "state"),
            MMLITE_TABLES: "a.*",
          },
        },
      );
    const first = await check("ams", "--listen", "0.0.0.0:7432");
    assert.match(first.stdout, /peers over TLS$/m, first.stderr);
    assert.deepEqual(Object.keys(await modesIn(join(directory, "state/tls"))).sort(), [
      ".",
      "ca-key.pem",
      "ca.pem",
    ]);
    const files = (key: string) => [
      ...["--tls-cert", join(directory, "fra/node.pem"), "--tls-key", join(directory, key)],
      ...["--tls-ca", join(directory, "fra/ca.pem")],
    ];
    assert.match((await check("fra", ...files("fra/node-key.pem"))).stdout, /peers over TLS$/m);
    assertRefused(await check("fra", ...files("state/tls/ca-key.pem")), {
      exit: 78,
      says: /it is not the key of "/,
    });
    assertRefused(await check("lon", ...files("fra/node-key.pem")), {
      exit: 78,
      says: /it names mmlite:\/\/shop\/fra, and this node is mmlite:\/\/shop\/lon$/,
    });
    assertRefused(await check("fra", ...files("fra/node-key.pem"), "--insecure"), {
      exit: 78,
      says: /^Cannot use both listen\.peers\.tls\.cert \(--tls-cert\) and insecure \(--insecure\)$/,
    });
  }));

Deno.test("show says what is in certificates, and no by its exit code to one that is not valid", () =>
  inWorld(async ({ directory, ok, run }) => {
    assertRefused(await run("show"), {
      exit: 78,
      says: /^Cannot read certificate file ".*state\/tls\/ca\.pem": ENOENT/,
    });
    await ok("ca", "--cluster", "shop", "--days", "900");
    await ok("issue", "fra", "--san", "dns:fra.example,ip:2001:db8::7", "--days", "20");
    const own = await ok("show");
    assert.match(own, /^identity +mmlite:\/\/shop$/m);
    assert.match(own, /^kind +certificate authority$/m);
    assert.match(own, /^days left +899$/m);
    const { items: [fra] } = JSON.parse(await ok("show", "fra/node.pem", "-o", "json"));
    const certificate = new X509Certificate(await Deno.readTextFile(join(directory, "fra/node.pem")));
    assert.deepEqual({ ...fra, not_before: "", issuer: "" }, {
      file: "fra/node.pem",
      identity: "mmlite://shop/fra",
      kind: "node",
      hosts: ["dns:fra.example", "ip:2001:db8::7"],
      issuer: "",
      fingerprint: certificate.fingerprint256,
      not_before: "",
      not_after: new Date(certificate.validTo).toISOString(),
      days_left: 19,
      valid: true,
    });
    const old = await (await TestAuthority.create()).issueNode("fra", { days: [-9, -1] });
    await Deno.writeTextFile(join(directory, "old.pem"), old.certificate);
    const expired = await run("show", "old.pem");
    assert.equal(expired.code, 1, expired.stderr);
    assert.match(expired.stdout, /^days left +expired$/m);
    assertRefused(await run("show", "fra/node-key.pem"), {
      exit: 78,
      says: /it holds no certificate in PEM form$/,
    });
  }));

Deno.test("the CA is of one cluster, and is found by what is said or by where it is", () =>
  inWorld(async ({ directory, ok, run }) => {
    assertRefused(await run("issue", "fra"), {
      exit: 78,
      says: /^Cannot issue a certificate: there is no CA key beside ".*state\/tls\/ca\.pem"$/,
      hint: /`mmlite cert ca` was run, or name/,
    });
    const { files, cluster } = JSON.parse(await ok("ca", "--cluster", "shop", "--out", "safe", "-o", "json"));
    assert.deepEqual([files.ca_key, cluster], [join(directory, "safe/ca-key.pem"), "shop"]);
    const ca = ["--ca", "safe/ca.pem", "--ca-key", "safe/ca-key.pem"];
    const issued = JSON.parse(await ok("issue", "fra", ...ca, "-o", "json"));
    assert.equal(issued.identity, "mmlite://shop/fra");
    assert.equal(issued.files.key, join(directory, "fra/node-key.pem"));
    assertRefused(await run("issue", "lon", "--cluster", "bank", ...ca), {
      exit: 64,
      says: /^Cannot issue a certificate for mmlite:\/\/bank\/lon: the CA is that of cluster "shop"$/,
    });
    assertRefused(await run("issue", "lon", "--ca", "fra/node.pem", "--ca-key", "fra/node-key.pem"), {
      exit: 78,
      says: /"fra\/node\.pem" holds no CA of it$/,
    });
    assertRefused(await run("issue", "Lon", ...ca), {
      exit: 64,
      says: /^Cannot issue for "Lon": expected 1 to 40/,
    });
    assertRefused(await run("issue", "lon", ...ca, "--san", "lon.example"), {
      exit: 64,
      says: /expected dns:NAME or/,
    });
    assertRefused(await run("issue", "lon", ...ca, "--days", "0"), {
      exit: 64,
      says: /expected a number from 1/,
    });
    assertRefused(await run("ca", "--as-curl"), { exit: 64, says: /it is no call of the control API$/ });
  }));
