import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { destroyClient } from "../pg/client.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { openApplySession } from "./session.ts";

Deno.test("a server of 14 or later ends a statement whose session is gone", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql("postgres", "SELECT pg_replication_origin_create('mmlite_b')");
  const session = await openApplySession({
    target: await parsePostgresUrl(server.url(), {}),
    origin: "b",
    originName: "mmlite_b",
    signal: new AbortController().signal,
  });
  const cut = assert.rejects(session.client.query("SELECT pg_sleep(600)"));
  const running = () =>
    server.sql("postgres", "SELECT FROM pg_stat_activity WHERE application_name = 'mmlite apply b'");
  await eventually("the statement to run", async () => (await running()).length === 1);
  destroyClient(session.client);
  await cut;
  await eventually("the server to notice", async () => (await running()).length === 0);
});
