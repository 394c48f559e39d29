import assert from "node:assert/strict";
import { errorOf } from "../../tests/support/apply_pair.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { drain, makeSlotBed, type SlotBed } from "../../tests/support/slot_bed.ts";
import { parseLsn } from "../lsn.ts";
import { BINARY_TYPES } from "../pgoutput/binary_text.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Relation } from "../pgoutput/message.ts";
import { messagesOf } from "../../tests/support/message_batch.ts";
import { BinaryValues } from "./binary_values.ts";

const SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, v numeric(9,2)); CREATE TABLE keyless (v text)";
const OTHER: Relation = {
  ...{ kind: "relation", relationId: 1, schema: "public", name: "other", replicaIdentity: "default" },
  columns: [
    { name: "id", key: true, typeOid: 23, typeModifier: -1 },
    { name: "list", key: false, typeOid: 1007, typeModifier: -1 },
  ],
};

async function walLsn({ query }: SlotBed) {
  const [{ lsn }] = await query("SELECT pg_current_wal_flush_lsn()::text AS lsn");
  return parseLsn(lsn!);
}

Deno.test("values go in binary form while all published types are taken so", async () => {
  await using server = await startPostgres({ major: 18 });
  await using bed = await makeSlotBed(server, { name: "form", schema: SCHEMA });
  const startLsn = await bed.ensureSlot();
  const values = new BinaryValues(bed);
  assert.notEqual(await values.session(startLsn, BINARY_TYPES), undefined);
  assert.equal(await values.session(startLsn, []), undefined, "a peer that says nothing");
  assert.equal(await values.session(startLsn, [23, 25]), undefined, "a peer that takes no numeric");
  assert.equal(
    await values.session(startLsn, [23, 25, 1007]),
    undefined,
    "one that takes what has no text here",
  );
  await bed.query("ALTER TABLE keyless ADD list int[]");
  assert.equal(await values.session(startLsn, BINARY_TYPES), undefined, "a table that has an array");
  await bed.publish(["public.t"]);
  assert.notEqual(await values.session(startLsn, BINARY_TYPES), undefined, "a table that is not published");
  await bed.query("ALTER TABLE t ADD twice int[] GENERATED ALWAYS AS (ARRAY[id, id]) STORED");
  assert.notEqual(await values.session(startLsn, BINARY_TYPES), undefined, "a column that is not sent");
});

Deno.test("a relation that does not fit ends the session, and what is in the WAL by then goes as text", async () => {
  await using server = await startPostgres({ major: 18 });
  await using bed = await makeSlotBed(server, { name: "refused", schema: SCHEMA });
  const startLsn = await bed.ensureSlot();
  const values = new BinaryValues(bed);
  const session = await values.session(startLsn, BINARY_TYPES);
  const error = await errorOf(Promise.resolve().then(() => session!.check(OTHER)));
  assert.deepEqual([error.kind, error.disposition], ["transient", "retry"]);
  assert.match(
    error.message,
    /"public\.other" in binary form: column "list" is of a type that only goes as text/,
  );
  await bed.query("INSERT INTO t VALUES (1, 1)");
  const until = await walLsn(bed);
  assert.equal(await values.session(startLsn, BINARY_TYPES), undefined);
  assert.equal(await values.session(startLsn, BINARY_TYPES), undefined);
  assert.notEqual(await values.session(until, BINARY_TYPES), undefined);
});

Deno.test("a slot sends values in the form that its session has", async () => {
  await using server = await startPostgres({ major: 14 });
  await using bed = await makeSlotBed(server, { name: "sent", schema: SCHEMA });
  const startLsn = await bed.ensureSlot();
  await bed.query("INSERT INTO t VALUES (1, 1.5)");
  const values = new BinaryValues(bed);
  for (const [taken, form] of [[BINARY_TYPES, "binary"], [[], "text"]] as const) {
    const source = await bed.source({ startLsn, binary: await values.session(startLsn, taken) });
    const kinds: string[] = [];
    for await (const { messages } of source.batches()) {
      for (const message of messagesOf(messages).map(decodeMessage)) {
        if (message.kind === "insert") kinds.push(...message.newTuple.map(({ kind }) => kind));
      }
      if (kinds.length > 0) break;
    }
    assert.deepEqual(kinds, [form, form]);
    await source.close();
  }
  const source = await bed.source({ startLsn, binary: await values.session(startLsn, BINARY_TYPES) });
  await bed.query("ALTER TABLE t ADD list int[]");
  await bed.query("INSERT INTO t VALUES (2, 2.5, '{1,2}')");
  assert.match((await drain(source)).message, /column "list" is of a type that only goes as text/);
  await source.close();
});

Deno.test("a server that has no binary form sends text", async () => {
  await using server = await startPostgres({ major: 13 });
  await using bed = await makeSlotBed(server, { name: "old", schema: SCHEMA });
  assert.equal(await new BinaryValues(bed).session(await bed.ensureSlot(), BINARY_TYPES), undefined);
});
