import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { within } from "../../tests/support/poll.ts";
import { closeClient, destroyClient, openClient } from "./client.ts";
import { MmliteError } from "../errors.ts";
import { sqlState } from "./errors.ts";
import { Pipeline } from "./pipeline.ts";
import { TEXT_FORMAT } from "./query_bytes.ts";
import { parsePostgresUrl } from "./target.ts";

const DIVISION_BY_ZERO = "22012";

Deno.test("a query is prepared again after a failure, whether the server knows it or not", async () => {
  await using server = await startPostgres({ major: 18 });
  const client = await openClient(await parsePostgresUrl(server.url(), {}), { applicationName: "test" });
  const failures: unknown[] = [];
  const pipeline = new Pipeline(client, { failed: (error) => void failures.push(error), notice: () => {} });
  const ask = (sql: string) => {
    const rows = pipeline.query("ask", sql, ["1"]);
    pipeline.sync();
    return rows;
  };
  const [known, skipped] = ["SELECT $1::text AS known", "SELECT $1::text AS skipped"];
  try {
    assert.deepEqual(await ask(known), [{ known: "1" }]);
    pipeline.prepare({ name: "fails", sql: "SELECT 1 / 0", parameterTypes: [] });
    pipeline.execute("fails", { doing: "fail", completed: () => {} });
    await assert.rejects(ask(skipped), (error) => sqlState(error) === DIVISION_BY_ZERO);
    await pipeline.recover();
    for (let run = 0; run < 2; run++) {
      assert.deepEqual(await ask(skipped), [{ skipped: "1" }]);
      assert.deepEqual(await ask(known), [{ known: "1" }]);
    }
    assert.equal(failures.length, 1);
    const [{ count }] = await ask(
      "SELECT count(*)::text AS count, $1 AS one FROM pg_prepared_statements WHERE name LIKE 'q%'",
    );
    assert.equal(count, "3", "each stays prepared once");
  } finally {
    await closeClient(client);
  }
});

Deno.test("nothing can be sent between a failure and the recovery, and nothing is answered wrongly after it", async () => {
  await using server = await startPostgres({ major: 18 });
  const client = await openClient(await parsePostgresUrl(server.url(), {}), { applicationName: "test" });
  const failed = Promise.withResolvers<unknown>();
  const pipeline = new Pipeline(client, { failed: failed.resolve, notice: () => {} });
  const isRefused = (error: unknown) => error instanceof MmliteError && error.kind === "internal";
  try {
    pipeline.prepare({ name: "fails", sql: "SELECT 1 / 0", parameterTypes: [] });
    pipeline.execute("fails", { doing: "fail", completed: () => {} });
    // The batch stays open, so that there is one that could be written to.
    pipeline.flush();
    assert.equal(sqlState(await failed.promise), DIVISION_BY_ZERO);
    assert.throws(() => pipeline.query("ask", "SELECT $1 AS lost", ["1"]), isRefused);
    assert.throws(() => pipeline.execute("fails", { doing: "fail", completed: () => {} }), isRefused);
    assert.throws(() => pipeline.forget("fails"), isRefused);
    await pipeline.recover();
    const rows = pipeline.query("ask", "SELECT $1 AS next", ["2"]);
    pipeline.sync();
    assert.deepEqual(await rows, [{ next: "2" }]);
  } finally {
    await closeClient(client);
  }
});

Deno.test("who waits for room goes on where a failure breaks the connection off with the socket full", async () => {
  await using server = await startPostgres({ major: 18 });
  const client = await openClient(await parsePostgresUrl(server.url(), {}), { applicationName: "test" });
  const failures: unknown[] = [];
  const failed = (error: unknown) => {
    failures.push(error);
    destroyClient(client);
  };
  const pipeline = new Pipeline(client, { failed, notice: () => {} });
  try {
    const sql = "SELECT 1 / CASE WHEN pg_sleep(1) IS NULL THEN 1 ELSE 0 END";
    pipeline.prepare({ name: "fails", sql, parameterTypes: [] });
    pipeline.prepare({ name: "fill", sql: "SELECT length($1)", parameterTypes: [25] });
    pipeline.execute("fails", { doing: "fail", completed: () => {} });
    const large = new Uint8Array(0x10_0000).fill(0x78);
    for (let i = 0; i < 32; i++) {
      pipeline.execute("fill", { doing: "fill", completed: () => {} }, [large], TEXT_FORMAT);
    }
    const room = pipeline.room();
    assert.notEqual(room, undefined);
    await within("room", 10_000, room!);
    assert.deepEqual(failures.map(sqlState), [DIVISION_BY_ZERO]);
  } finally {
    await closeClient(client);
  }
});
