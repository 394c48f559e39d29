/**
 * Nodes that speak TLS: they converge, certificates are exchanged under load without harm to what needs none, and
 * files that do not fit change nothing.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  APPEND_SCHEMA,
  type AppendPlace,
  AppendWriter,
  assertAppended,
  seededIntegers,
} from "./support/append_load.ts";
import { connectAll, type Mmlite, runMmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { makeScratch, removeScratch } from "./support/scratch.ts";

interface TlsNode extends AppendPlace {
  readonly mmlite: Mmlite;
  /** Where its certificate files are. */
  readonly tls: string;
}

interface TlsPair extends AsyncDisposable {
  readonly a: TlsNode;
  readonly b: TlsNode;
  /** For files that tests make. */
  readonly directory: string;
}

async function mmlite(...args: string[]): Promise<void> {
  const { code, stderr } = await runMmlite(args);
  assert.equal(code, 0, stderr);
}

/** Node a holds the CA's key, and b a certificate from it; both are peers of each other over TLS. */
async function startPair(): Promise<TlsPair> {
  await using stack = new AsyncDisposableStack();
  const directory = await makeScratch("tls");
  stack.defer(() => removeScratch(directory));
  const place = (name: string) => join(directory, name);
  await mmlite("cert", "ca", "--out", place("a"));
  await mmlite("cert", "issue", "b", ...authority(place("a")), "--out", place("b"));
  const server = stack.use(await startPostgres({ major: 18 }));
  const start = async (name: string): Promise<TlsNode> => {
    await server.createDatabase(name);
    await server.sql(name, APPEND_SCHEMA);
    const node = await startMmlite({
      name,
      postgres: server.url(name),
      tls: place(name),
      extraArgs: ["--log-level", "debug"],
    });
    stack.use(node);
    return { name, server, database: name, mmlite: node, tls: place(name) };
  };
  const [a, b] = [await start("a"), await start("b")];
  await connectAll([a.mmlite, b.mmlite]);
  for (const node of [a, b]) await streaming(node);
  const owned = stack.move();
  return { a, b, directory, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function authority(directory: string): string[] {
  return ["--ca", join(directory, "ca.pem"), "--ca-key", join(directory, "ca-key.pem")];
}

// deno-lint-ignore no-explicit-any
async function statusOf({ mmlite }: TlsNode): Promise<any> {
  const { json } = await mmlite.api("GET", "/v1/status");
  // The load has a table without a key, which every node complains of.
  return { ...json, problems: json.problems.filter(({ kind }: { kind: string }) => kind === "config") };
}

/** Waits for the link of a node to its peer; how often it has been connected anew. */
async function streaming(node: TlsNode): Promise<number> {
  return await eventually(`${node.name} to stream`, async () => {
    const { peers: [peer] } = await statusOf(node);
    if (peer?.state === "streaming" && peer.inbound.state === "streaming") {
      return { reconnects: peer.reconnects };
    }
    throw new Error(JSON.stringify(peer));
  }).then(({ reconnects }) => reconnects);
}

/** Moves the files of a directory over those of a node, one after the other. */
async function putFiles(from: string, { tls }: TlsNode, names = ["node-key.pem", "node.pem"]): Promise<void> {
  for (const name of names) {
    await Deno.copyFile(join(from, name), join(tls, `${name}.new`));
    await Deno.rename(join(tls, `${name}.new`), join(tls, name));
  }
}

/** Tells a node to read its files again, and waits until its status shows what it should. */
async function reload(...[node, what, look]: Parameters<typeof shows>): Promise<void> {
  node.mmlite.signal("SIGHUP");
  await shows(node, what, look);
}

async function shows(
  node: TlsNode,
  what: string,
  // deno-lint-ignore no-explicit-any
  look: (status: any) => boolean,
): Promise<void> {
  await eventually(`${node.name} to show ${what}`, async () => {
    const status = await statusOf(node);
    if (look(status)) return true;
    throw new Error(JSON.stringify([status.tls, status.problems]));
  });
}

async function readText(...parts: string[]): Promise<string> {
  return await Deno.readTextFile(join(...parts));
}

Deno.test("certificates and CA are exchanged under load; streams that need no new connection keep theirs", async () => {
  await using pair = await startPair();
  const { a, b, directory } = pair;
  const nodes = [a, b];
  const writers = nodes.map((node, index) => new AppendWriter(node, seededIntegers(index)));
  const reconnects = async () => [await streaming(a), await streaming(b)];
  const atFirst = await reconnects();
  const problem = (text: RegExp) => (status: { problems: { message: string }[] }) =>
    status.problems.some(({ message }) => text.test(message));
  const place = (name: string) => join(directory, name);

  // A file that does not fit the others changes nothing, and status says what is wrong with it.
  const good = await readText(b.tls, "node.pem");
  await Deno.writeTextFile(join(b.tls, "node.pem"), good.slice(0, 300));
  await reload(b, "half a certificate", problem(/"[^"]*b\/node\.pem": it holds no certificate in PEM form$/));
  await Deno.writeTextFile(join(b.tls, "node.pem"), await readText(a.tls, "node.pem"));
  await reload(b, "a certificate of another node", problem(/b\/node-key\.pem": it is not the key of "/));
  await mmlite("cert", "issue", "c", ...authority(a.tls), "--out", place("c"));
  await putFiles(place("c"), b);
  await reload(
    b,
    "the name of another node",
    problem(/it names mmlite:\/\/mmlite\/c, and this node is .*\/b$/),
  );
  await mmlite("cert", "ca", "--out", place("other"));
  await mmlite("cert", "issue", "b", ...authority(place("other")), "--out", place("other-b"));
  await putFiles(place("other-b"), b);
  await reload(b, "a certificate of another CA", problem(/no authority in "[^"]*" has issued it$/));
  assert.deepEqual(await reconnects(), atFirst);

  // New certificates of the same CA: nobody has to connect anew, nor to say that they are there.
  for (const node of nodes) {
    await mmlite(
      "cert",
      "issue",
      node.name,
      ...authority(a.tls),
      "--out",
      place(`${node.name}-2`),
      "--days",
      "300",
    );
    await putFiles(place(`${node.name}-2`), node);
    const { not_after } = await certificateIn(join(node.tls, "node.pem"));
    await shows(
      node,
      "its new certificate",
      ({ tls, problems }) => tls.certificate_expires_at === not_after && problems.length === 0,
    );
  }
  assert.deepEqual(await reconnects(), atFirst);

  // A new CA: first everybody trusts both, then has a certificate of the new one.
  await mmlite("cert", "ca", "--out", place("ca-2"), "--days", "2000");
  const both = await readText(a.tls, "ca.pem") + await readText(place("ca-2"), "ca.pem");
  for (const node of nodes) {
    await Deno.writeTextFile(join(node.tls, "ca.pem"), both);
    await reload(node, "no problem", ({ problems }) => problems.length === 0);
  }
  const { not_after: newEnd } = await certificateIn(join(place("ca-2"), "ca.pem"));
  for (const node of nodes) {
    await mmlite("cert", "issue", node.name, ...authority(place("ca-2")), "--out", place(`${node.name}-3`));
    await putFiles(place(`${node.name}-3`), node);
    await reload(
      node,
      "the new CA",
      ({ tls, problems }) => tls.ca_expires_at === newEnd && problems.length === 0,
    );
  }
  assert.deepEqual(await reconnects(), atFirst);

  // Then the old CA is trusted no more: what was proven by it has to be proven anew.
  for (const node of nodes) {
    await putFiles(place("ca-2"), node, ["ca.pem"]);
    node.mmlite.signal("SIGHUP");
  }
  await eventually("both to have connected anew", async () => {
    const now = await reconnects();
    return now.every((count, index) => count > atFirst[index]);
  });
  for (const writer of writers) await writer.stop();
  await assertAppended(
    nodes,
    new Map(nodes.map(({ name }, index) => [name, writers[index].committedSequence])),
  );
});

Deno.test("the first node needs the CA's key alone; no key is in what nodes say", async () => {
  await using pair = await startPair();
  const { a, b } = pair;
  const status = await statusOf(a);
  assert.equal(status.node.insecure, false);
  assert.equal(status.node.advertised_url, a.mmlite.peerUrl);
  assert.equal(status.tls.identity, "mmlite://mmlite/a");
  assert.deepEqual(status.problems, []);
  assert.match(
    await a.mmlite.log(),
    /Issued this node a certificate, .*a\/node\.pem, as the CA's key is here/,
  );

  const [peer] = status.peers;
  assert.equal(peer.certificate_expires_at, (await statusOf(b)).tls.certificate_expires_at);

  const { json: metrics } = await a.mmlite.api("GET", "/metrics");
  for (const [certificate, time] of [["node", "certificate_expires_at"], ["ca", "ca_expires_at"]]) {
    const seconds = Date.parse(status.tls[time]) / 1000;
    const series = `mmlite_certificate_expiry_timestamp_seconds{certificate="${certificate}"} ${seconds}`;
    assert(metrics.includes(series), series);
  }
  const page = await a.mmlite.cli("status");
  assert.match(
    page.stdout,
    /^tls +on +mmlite:\/\/mmlite\/a, certificate until 20\d\d-\d\d-\d\d, CA until 20/m,
  );

  // A peer that is to be dialled in cleartext is refused, on loopback it is not.
  const { status: code, json } = await a.mmlite.api("PUT", "/v1/peers/c", { url: "http://c.example:7432" });
  assert.deepEqual([code, json.kind], [422, "config"]);
  assert.match(json.detail, /it would be dialled in cleartext, and this node speaks TLS$/);

  const show = await a.mmlite.cli("config", "show", "--origin");
  const said = [show.stdout, page.stdout, metrics, JSON.stringify([status, await statusOf(b)])];
  for (const node of [a, b]) said.push(await node.mmlite.log());
  const secrets = [a.tls, b.tls].map((tls) => readText(tls, "node-key.pem"));
  for (const key of await Promise.all([...secrets, readText(a.tls, "ca-key.pem")])) {
    for (const line of key.split("\n").filter((line) => line.length > 20 && !line.startsWith("-"))) {
      assert(said.every((text) => !text.includes(line)));
    }
  }
});

async function certificateIn(file: string): Promise<{ not_after: string }> {
  const { stdout } = await runMmlite(["cert", "show", file, "-o", "json"]);
  return JSON.parse(stdout).items[0];
}
