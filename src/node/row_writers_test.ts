import assert from "node:assert/strict";
import { MmliteError } from "../errors.ts";
import type { ScannedTable } from "../pg/scanned_table.ts";
import { RowWriters } from "./row_writers.ts";

Deno.test("nothing is written to a table before it may have rows of other nodes", async () => {
  const asked: unknown[] = [];
  const writers = new RowWriters(
    {
      self: "ams",
      awaitTable: (oid) => {
        asked.push(oid);
        return Promise.reject(new MmliteError("transient", "Cannot publish table public.t: it is locked"));
      },
      requireWhole: () => void asked.push("open"),
    } as ConstructorParameters<typeof RowWriters>[0],
  );
  const table = { schema: "public", name: "t" };
  const scanned = { table: { ...table, oid: 7 }, key: [{}] } as unknown as ScannedTable;
  await using writer = writers.writer("fra", {
    tableOf: () => scanned,
    newest: false,
    signal: new AbortController().signal,
  });
  await assert.rejects(writer.begin(table), (error: MmliteError) => error.kind === "transient");
  assert.deepEqual(asked, [7]);
});
