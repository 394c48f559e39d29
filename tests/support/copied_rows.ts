/** What a node that copies its rows from another one is given of a table. */
import { Buffer } from "node:buffer";
import { CopySource } from "../../src/pg/copy_source.ts";
import type { LocalTable } from "../../src/pg/tables.ts";
import type { PostgresTarget } from "../../src/pg/target.ts";

/** Column `v` of all rows of a table that are newer than 2000, with their versions: the lines of COPY. */
export async function copiedRows(
  target: PostgresTarget,
  { table, serverVersion }: { readonly table: LocalTable; readonly serverVersion: number },
): Promise<string> {
  const before = "2000-01-01 00:00:00Z";
  const { signal } = new AbortController();
  const copy = await CopySource.open(target, { serverVersion, isVersioned: true, signal });
  await copy.take(before);
  const reader = await copy.openReader();
  await reader.begin();
  const pieces: Uint8Array[] = [];
  const wanted = {
    range: { table, pages: "", file: "" },
    columns: [{ name: "v", type: 25 }],
    part: { kind: "each", except: [] },
  } as const;
  for await (const { bytes } of reader.read({ ...wanted, binary: false, before })) pieces.push(bytes);
  await reader.close();
  await copy.close();
  return Buffer.concat(pieces).toString();
}
