/**
 * Rows whose key a cast to text prints otherwise than replication does are known all the same by what is noted of them,
 * on the oldest server and the newest.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { ApplyPair, ORIGIN } from "../../tests/support/apply_pair.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { copiedRows } from "../../tests/support/copied_rows.ts";
import { DEFAULT_POLICY } from "../conflict_policy.ts";
import { closeClient } from "../pg/client.ts";
import { ColumnTypes } from "../pg/column_types.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { readLocalTable } from "../pg/relation.ts";
import { openHashClient } from "../pg/row_hash.ts";
import { readScannedTable } from "../pg/scanned_table.ts";
import { TableScan } from "../pg/table_scan.ts";
import { readTables } from "../pg/tables.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { readPublishedRow, readUnsent } from "../pg/unsent.ts";
import { readWholeRows } from "../pg/whole_rows.ts";
import type { Relation } from "../pgoutput/message.ts";
import { ExactStatements } from "./exact_statements.ts";
import { removeTruncatedStatement } from "./own_statements.ts";
import { type MappedRelation, mapRelation } from "./relation_map.ts";

/** A type of keys, and two values of it as replication sends them. */
interface Key {
  readonly name: string;
  readonly type: string;
  /** What makes the type. */
  readonly before?: string;
  readonly one: string;
  readonly other: string;
}

const KEYS: readonly Key[] = [
  { name: "character", type: "char(5)", one: "ab   ", other: "cd   " },
  { name: "boolean", type: "boolean", one: "t", other: "f" },
  { name: "inet", type: "inet", one: "10.0.0.1", other: "10.0.0.0/8" },
  {
    name: "enum",
    before: `CREATE TYPE mood AS ENUM ('good', 'bad');
      CREATE FUNCTION shown(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mood'::text $$;
      CREATE CAST (mood AS text) WITH FUNCTION shown(mood)`,
    type: "mood",
    one: "good",
    other: "bad",
  },
];

const LONG_AGO = "2010-01-01Z";
const LONG_AGO_US = BigInt(Date.UTC(2010, 0, 1) - 946_684_800_000) * 1000n;
const hex = (text: string) => Buffer.from(text).toString("hex");

interface Servers {
  readonly source: PostgresServer;
  readonly target: PostgresServer;
  readonly major: PostgresMajor;
}

/**
 * A pair with a row in the target that another node wrote long ago and that was written here with later ones, and a
 * change that was recorded before that.
 */
async function openPair(
  { source, target }: Servers,
  key: Key,
  { name, change }: { name: string; change?: string },
) {
  const { type, before = "", one } = key;
  const pair = await ApplyPair.open({
    ...{ source, target, name: `${name}_${key.name}` },
    schema: `${before}; CREATE TABLE t (id ${type} PRIMARY KEY, v text UNIQUE, big text);
      ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
  });
  const recorded = change === undefined ? [] : await pair.record(change);
  await pair.target.query(
    `BEGIN; INSERT INTO t VALUES ('${one}', 'one', repeat('b', 5000));
     INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
       VALUES (txid_current(), 'par', '${LONG_AGO}', clock_timestamp(),
         int8send(mmlite.key_hash('public.t', ARRAY['${one}'])) || timestamptz_send('${LONG_AGO}')); COMMIT`,
  );
  return { pair, recorded };
}

/** As other nodes see the table, and what the test's own queries are asked by. */
async function openScan({ target, major }: Servers, database: string) {
  const client = await openHashClient(await parsePostgresUrl(target.url(database), {}), {
    applicationName: "mmlite test",
    signal: new AbortController().signal,
  });
  const query = queryWith(client);
  const serverVersion = major * 10_000;
  const table = (await readTables(query)).find(({ name }) => name === "t")!;
  const scanned = await readScannedTable(query, table, serverVersion);
  const scan = new TableScan(query, scanned, {
    ...{ buckets: 256, share: 1, keyed: true, serverVersion, signal: new AbortController().signal },
  });
  return { query, table, scanned, scan, [Symbol.asyncDispose]: () => closeClient(client) };
}

/** The local table as a peer's of the same columns. */
async function mapped(query: Query, major: PostgresMajor): Promise<MappedRelation> {
  const options = { schema: "public", name: "t", serverVersion: major * 10_000, types: new ColumnTypes() };
  const local = (await readLocalTable(query, options))!;
  const columns = local.columns.map(({ name, typeOid, typeModifier }) => ({
    ...{ name, typeOid, typeModifier, key: name === "id" },
  }));
  const remote: Relation = {
    ...{ kind: "relation", relationId: 1, schema: "public", name: "t", replicaIdentity: "default", columns },
  };
  return mapRelation(remote, local, { policy: DEFAULT_POLICY, versioned: true, isOwn: "false" });
}

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`rows are known by their keys as replication sends them, on PostgreSQL ${major}`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const servers = { source, target, major };
    for (const key of KEYS) {
      const { one, other } = key;

      await t.step(`${key.name}: a truncate removes what is older than it and no more`, async () => {
        const opened = await openPair(servers, key, { name: "truncated", change: "TRUNCATE t" });
        await using pair = opened.pair;
        await pair.target.query(`INSERT INTO t VALUES ('${other}', 'other')`);
        await pair.apply(opened.recorded);
        assert.deepEqual(await pair.rows("SELECT v FROM t"), ["(other)"]);
      });

      await t.step(`${key.name}: a row that may not stand beside it is newer`, async () => {
        const change = `INSERT INTO t VALUES ('${other}', 'one')`;
        const opened = await openPair(servers, key, { name: "beside", change });
        await using pair = opened.pair;
        await pair.apply(opened.recorded);
        const rows = "SELECT format('%s', id) FROM t";
        assert.deepEqual(await pair.rows(rows), (await pair.both(rows))[0]);
      });

      await t.step(`${key.name}: comparing, repairing, fetching and copying tell its version`, async () => {
        const { pair: opened } = await openPair(servers, key, { name: "told" });
        await using pair = opened;
        await using seen = await openScan(servers, `told_${key.name}_dst`);
        const { query, scan, scanned, table } = seen;
        const [looked] = await scan.look([[hex(one)]]);
        assert.equal(looked!.version, "2010-01-01 00:00:00 par");
        const [whole] = await readWholeRows(query, scanned, [[hex(one)]]);
        assert.deepEqual(whole.kind === "row" && whole.version, { at: LONG_AGO_US, node: "par" });
        const lock = await query(new ExactStatements(scanned).lockVersions, [`{${hex(one)}}`]);
        assert.equal(Object.values(lock[0])[3], `${LONG_AGO_US} par`);

        await query("CREATE PUBLICATION mmlite FOR TABLE public.t");
        const want = { schema: "public", name: "t", key: [{ column: "id", value: Buffer.from(one) }] };
        const limits = { serverVersion: major * 10_000, maxBytes: 10_000 };
        const row = await readPublishedRow(query, want, limits);
        assert.ok(row.kind === "row");
        assert.deepEqual([row.at, row.node], [LONG_AGO_US, "par"]);
        assert.equal(Buffer.from(row.values[0]!).toString(), one);

        const copied = await copiedRows(await parsePostgresUrl(target.url(`told_${key.name}_dst`), {}), {
          ...{ table, serverVersion: major * 10_000 },
        });
        const [{ hash }] = await query(`SELECT mmlite.key_hash('public.t', ARRAY['${one}']) AS hash`);
        assert.equal(copied, `par\t${LONG_AGO_US}\t${hash}\tone\n`);

        await query(removeTruncatedStatement(await mapped(query, major)), ["fra", "2020-01-01Z"]);
        assert.deepEqual(await pair.rows("SELECT v FROM t"), [], "a truncate of this node's own removes it");
      });

      await t.step(`${key.name}: what is awaited of it is asked for by its key, and shown`, async () => {
        const { pair: opened } = await openPair(servers, key, { name: "awaited" });
        await using pair = opened;
        // As if both had had it from a third node.
        await pair.record(`INSERT INTO t VALUES ('${one}', 'one', repeat('b', 5000))`);
        await pair.target.query(`INSERT INTO t VALUES ('${other}', 'other')`);
        await pair.replicate("UPDATE t SET v = 'again'");
        await using seen = await openScan(servers, `awaited_${key.name}_dst`);
        const [unsent] = await readUnsent(seen.query, ORIGIN, 10);
        assert.equal(Buffer.from(unsent.key[0].value).toString(), one);
        const looked = await seen.scan.look([[hex(one)], [hex(other)]]);
        assert.deepEqual(looked.map((row) => row!.awaited), [true, false]);
      });

      await t.step(`${key.name}: that it was deleted is told`, async () => {
        const { pair: opened } = await openPair(servers, key, { name: "deleted" });
        await using pair = opened;
        await pair.replicate(`INSERT INTO t VALUES ('${other}', 'other')`, "DELETE FROM t");
        await using seen = await openScan(servers, `deleted_${key.name}_dst`);
        const [whole] = await readWholeRows(seen.query, seen.scanned, [[hex(other)]]);
        assert.equal(whole.kind === "none" && whole.version?.node, ORIGIN);
      });
    }
  });
}
