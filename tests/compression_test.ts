/** Compression between whole nodes: what each pair of settings agrees on, what arrives, and what is shown of it. */
import assert from "node:assert/strict";
import { connectAll, type Mmlite, runMmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const SETTINGS = ["auto", "zstd", "gzip"] as const;
const ROWS = 3_000;

interface Flow {
  readonly compression: string | null;
  readonly messages: number;
  readonly wire: number;
}

async function flow(from: Mmlite, to: Mmlite): Promise<Flow> {
  const { json } = await from.api("GET", `/v1/peers/${to.name}`);
  const { compression, sent_message_bytes, sent_bytes } = json;
  return { compression, messages: Number(sent_message_bytes), wire: Number(sent_bytes) };
}

Deno.test("nodes compress as their settings agree, and what arrives is the same", async () => {
  await using stack = new AsyncDisposableStack();
  const members = await Promise.all(SETTINGS.map(async (name) => {
    const server = stack.use(await startPostgres({ major: 18 }));
    await server.sql(
      "postgres",
      "CREATE TABLE item (node text, number int, body text, PRIMARY KEY (node, number))",
    );
    const extraArgs = ["--compression", name];
    return { server, node: stack.use(await startMmlite({ name, postgres: server.url(), extraArgs })) };
  }));
  const nodes = members.map(({ node }) => node);
  const [auto, zstd, gzip] = nodes;
  await connectAll(nodes);
  for (const { server, node } of members) {
    const values = `'${node.name}', g, md5(g::text) || repeat(' mmlite', 10)`;
    await server.sql("postgres", `INSERT INTO item SELECT ${values} FROM generate_series(1, ${ROWS}) g`);
  }
  for (const { server, node } of members) {
    await eventually(`${node.name} to hold all rows`, async () => {
      const [{ count }] = await server.sql("postgres", "SELECT count(*)::int FROM item");
      return count === nodes.length * ROWS;
    });
  }
  const digest = "SELECT sum(hashtextextended(item::text, 0))::text AS sum FROM item";
  const digests = await Promise.all(members.map(({ server }) => server.sql("postgres", digest)));
  assert.deepEqual(digests[1], digests[0]);
  assert.deepEqual(digests[2], digests[0]);

  // By itself nothing on one machine; else what the sender has and the receiver takes.
  const flows: [from: Mmlite, to: Mmlite, compression: string | null][] = [
    [auto, zstd, null],
    [auto, gzip, null],
    [zstd, auto, "zstd"],
    [zstd, gzip, null],
    [gzip, auto, "gzip"],
    [gzip, zstd, null],
  ];
  for (const [from, to, compression] of flows) {
    const { messages, wire, ...agreed } = await flow(from, to);
    assert.equal(agreed.compression, compression, `${from.name} to ${to.name}`);
    assert(messages > ROWS * 100, `${messages}`);
    if (compression === null) assert(wire > messages && wire < messages * 1.1, `${wire} for ${messages}`);
    else assert(wire < messages / 3, `${wire} for ${messages}`);
  }
  const metrics = (await zstd.api("GET", "/metrics")).json;
  const { messages, wire } = await flow(zstd, auto);
  const counted = (name: string) =>
    Number(new RegExp(`^${name}{peer="auto"} (\\d+)`, "m").exec(metrics)?.[1]);
  assert.equal(counted("mmlite_sent_message_bytes_total"), messages);
  // A heartbeat may have gone out between the two looks.
  assert(Math.abs(counted("mmlite_sent_bytes_total") - wire) < 100);
});

Deno.test("an unknown compression is refused with those that there are", async () => {
  const { code, stderr } = await runMmlite(["run", "--name", "a", "--compression", "lz4"]);
  assert.equal(code, 78);
  assert.match(stderr, /--compression/);
  assert.match(stderr, /"?auto"?.*zstd.*gzip/);
});
