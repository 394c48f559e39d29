/** Jobs whose beginning or end meets a database that is away, and what is kept of those that have ended. */
import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import type { Job, JobInput } from "../api/job_schemas.ts";
import { MmliteError } from "../errors.ts";
import { openClient } from "../pg/client.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { ensureSchema } from "../pg/schema.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import type { Database } from "./database.ts";
import { Jobs } from "./jobs.ts";

const INPUT = { type: "verify" } as JobInput;

Deno.test("a job comes to its end on record, whether PostgreSQL is there at that moment or not", async (t) => {
  await using server = await startPostgres({ major: 18 });
  const client = await openClient(await parsePostgresUrl(server.url("postgres"), {}), {
    applicationName: "test",
  });
  const query = queryWith(client);
  await ensureSchema(query);
  let refusals = 0;
  let refused = /state = \$2/;
  const guarded: Query = (sql, values) => {
    if (refusals > 0 && refused.test(sql)) {
      refusals--;
      return Promise.reject(new MmliteError("transient", "Cannot reach the database: no connection"));
    }
    return query(sql, values);
  };
  const database = { control: { query: () => guarded } } as unknown as Pick<Database, "control">;
  const closing = new AbortController();
  let run = (): Promise<Job["result"]> => Promise.resolve(null);
  const kind = { check: () => {}, run: () => run(), interruptedHint: "" };
  const jobs = new Jobs({
    database,
    kinds: { verify: kind, repair: kind, resync: kind, copy: kind },
    signal: closing.signal,
  });
  const ended = (id: string, state: Job["state"]) =>
    eventually(`job ${id} to be ${state}`, async () => (await jobs.get(id)).state === state);

  await t.step("one that succeeds", async () => {
    refusals = 3;
    await ended((await jobs.create(INPUT, { dryRun: false })).id, "succeeded");
    assert.equal(refusals, 0);
  });

  await t.step("one that fails", async () => {
    run = () => Promise.reject(new MmliteError("unreachable", "Cannot go on"));
    refusals = 3;
    const { id } = await jobs.create(INPUT, { dryRun: false });
    await ended(id, "failed");
    assert.equal((await jobs.get(id)).error?.message, "Cannot go on");
  });

  await t.step("one that cannot begin at once", async () => {
    [refused, refusals] = [/SET state = 'running'/, 3];
    run = () => Promise.resolve(null);
    await ended((await jobs.create(INPUT, { dryRun: false })).id, "succeeded");
    assert.equal(refusals, 0);
  });

  await t.step("those that wait push out none that has just ended", async () => {
    const { promise, resolve } = Promise.withResolvers<null>();
    run = () => promise;
    const { id } = await jobs.create(INPUT, { dryRun: false });
    await ended(id, "running");
    run = () => new Promise(() => {});
    for (let i = 0; i < 30; i++) await jobs.create(INPUT, { dryRun: false });
    resolve(null);
    await ended(id, "succeeded");
    await jobs.create(INPUT, { dryRun: false });
    assert.equal((await jobs.get(id)).state, "succeeded");
  });

  closing.abort();
  await client.end();
});
