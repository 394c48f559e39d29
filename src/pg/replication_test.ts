import assert from "node:assert/strict";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { closeClient, openClient } from "./client.ts";
import { queryWith } from "./query.ts";
import { allowDecodingMemory } from "./replication.ts";
import { parsePostgresUrl } from "./target.ts";

/** What a walsender may hold in memory, on a server with these shared buffers, of which so many decode at once. */
async function memoryAllowed(
  major: PostgresMajor,
  { buffers, sharers, own }: { buffers: string; sharers: number; own?: string },
): Promise<string | null> {
  await using server = await startPostgres({ major, settings: { shared_buffers: buffers } });
  if (own !== undefined) {
    await server.sql("postgres", `ALTER ROLE ALL SET logical_decoding_work_mem = '${own}'`);
  }
  const client = await openClient(await parsePostgresUrl(server.url("postgres"), {}), {
    applicationName: "test",
    replication: true,
    settings: {},
  });
  try {
    const query = queryWith(client);
    await allowDecodingMemory(query, sharers);
    const [{ memory }] = await query(
      "SELECT current_setting('logical_decoding_work_mem', true) AS memory",
    );
    return memory;
  } finally {
    await closeClient(client);
  }
}

Deno.test("large transactions are decoded in memory, as far as the server's own memory goes", async () => {
  assert.equal(await memoryAllowed(18, { buffers: "512MB", sharers: 1 }), "256MB");
  assert.equal(await memoryAllowed(18, { buffers: "128MB", sharers: 2 }), "128MB");
  assert.equal(await memoryAllowed(13, { buffers: "64MB", sharers: 1 }), "128MB");
  assert.equal(await memoryAllowed(18, { buffers: "16MB", sharers: 1 }), "64MB");
  assert.equal(await memoryAllowed(18, { buffers: "512MB", sharers: 8 }), "64MB");
});

Deno.test("what an operator has set for decoding stays, and before 13 there is nothing to set", async () => {
  assert.equal(await memoryAllowed(18, { buffers: "512MB", sharers: 1, own: "32MB" }), "32MB");
  assert.equal(await memoryAllowed(12, { buffers: "512MB", sharers: 1 }), null);
});
