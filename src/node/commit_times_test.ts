import assert from "node:assert/strict";
import { openControl } from "../pg/control.ts";
import { readServerTime } from "../pg/server.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { CommitTimes } from "./commit_times.ts";
import { SKEW_MARGIN_MS } from "./group_keeper.ts";

const MINUTE = BigInt(SKEW_MARGIN_MS) * 1000n;

for (const major of [10, 18] as const) {
  Deno.test(`what is committed is certain as soon as nobody writes who did, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    const control = openControl(await parsePostgresUrl(server.url("postgres"), {}), "mmlite");
    const [client, other] = [await server.connect("postgres"), await server.connect("postgres")];
    try {
      const query = control.query("test");
      const times = new CommitTimes(query);
      const lag = async () => {
        const before = await readServerTime(query);
        return before - (await times.read()).timestamp;
      };
      const write = async (session: typeof client) => {
        await session.query("BEGIN");
        await session.query("SELECT txid_current()");
      };
      assert.ok(await lag() <= 0n, "nobody writes");
      await client.query("BEGIN; SELECT 1");
      assert.ok(await lag() <= 0n, "who has not written yet does not count");
      await client.query("SELECT txid_current()");
      const begun = await readServerTime(query);
      assert.ok(await lag() < 10_000_000n, "it did not write at the last look");
      assert.ok(await lag() > MINUTE - 1_000_000n, "a transaction that was writing then still is");
      await write(other);
      await client.query("COMMIT");
      const now = (await times.read()).timestamp;
      assert.ok(now >= begun && now <= await readServerTime(query), "the writer of the last look is through");
      await other.query("COMMIT");
      assert.ok(await lag() <= 0n);

      await client.query("SET application_name = 'mmlite apply fra'");
      await write(client);
      assert.ok(await lag() <= 0n, "what is applied is not sent on");
      assert.ok(await lag() <= 0n);
    } finally {
      await client.end();
      await other.end();
      await control.close();
    }
  });
}
