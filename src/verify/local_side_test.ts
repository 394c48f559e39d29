import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { queryWith } from "../pg/query.ts";
import { ensureSchema } from "../pg/schema.ts";
import { readTables } from "../pg/tables.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { LocalSide } from "./local_side.ts";

for (const major of [10, 13, 18] as const) {
  Deno.test(`what is read for a comparison ends in the server when that is cancelled, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await server.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY)");
    const target = await parsePostgresUrl(server.url(), {});
    const client = await openClient(target, { applicationName: "test" });
    await ensureSchema(queryWith(client));
    await closeClient(client);
    const holder = await server.connect("postgres");
    const stop = new AbortController();
    const side = new LocalSide({
      ...{ node: "ams", peer: "fra", target, readTables, signal: stop.signal },
      serverVersion: major * 10_000,
    });
    const readers = async () =>
      await server.sql(
        "postgres",
        "SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'mmlite verify'",
      );
    try {
      await side.tables();
      await holder.query("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
      const table = { schema: "public", name: "t" };
      const reading = side.read({ table, keyed: true, buckets: 256, share: 1 }, () => {});
      await eventually("it to wait", async () => (await readers())[0]?.wait_event_type === "Lock");
      const refused = assert.rejects(reading, { kind: "aborted" });
      stop.abort();
      await refused;
      await eventually("nobody to read any more", async () => (await readers()).length === 0, {
        timeoutMs: 5_000,
      });
    } finally {
      await side.close();
      await holder.end();
    }
  });
}
