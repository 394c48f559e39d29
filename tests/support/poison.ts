/**
 * Transactions that cannot be applied, ten kinds of them, each between two that can; and what becomes of them: what
 * status says, what skipping keeps, what trying again does.
 */
import assert from "node:assert/strict";
// @ts-types="@types/pg"
import type pg from "pg";
import { type Cluster, type ClusterMember, startCluster } from "./cluster.ts";
import { eventually } from "./poll.ts";
import type { PostgresServer } from "./postgres.ts";
import { openSmallDisk, type SmallDisk } from "./small_disk.ts";

/** A value that must appear in no log and no error. */
export const SECRET = "rOw-value-7";

/** Where a poison is tried. */
export interface PoisonBed extends AsyncDisposable {
  readonly from: ClusterMember;
  readonly to: ClusterMember;
  readonly disk: SmallDisk | undefined;
}

/** One kind of poison. `p` is its table. */
export interface Poison {
  readonly kind: string;
  /** The table at the sender, and before `spoil` at the receiver. */
  readonly table: string;
  /** What makes the receiver refuse; in a session of its own that stays open until the end. */
  readonly spoil: (bed: PoisonBed, session: pg.Client) => Promise<unknown>;
  /** The transaction, at the sender. */
  readonly write: string;
  /** Called once the transaction has arrived, for what must happen then. */
  readonly meanwhile?: (bed: PoisonBed, session: pg.Client) => Promise<unknown>;
  /** What status says, and that it goes on by itself once the cause is gone. */
  readonly says: RegExp;
  readonly heals: boolean;
  readonly cure: (bed: PoisonBed, session: pg.Client) => Promise<unknown>;
}

/** What became of one. */
export interface PoisonOutcome {
  readonly kind: string;
  /** The receiver's state, the error's kind, and what it says. */
  readonly status: string;
  readonly skip: string;
  readonly retry: string;
}

const PLAIN = "CREATE TABLE p (id int PRIMARY KEY, v text)";
const INSERT = `INSERT INTO p VALUES (1, '${SECRET}')`;

const at = (sql: string) => async ({ to }: PoisonBed) => await to.client.query(sql);
const raising = (name: string, code: string) =>
  `CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no %', NEW.v USING ERRCODE = '${code}'; END $$`;

/** All kinds. */
export const POISONS: readonly Poison[] = [
  {
    kind: "constraint",
    table: PLAIN,
    spoil: at(`ALTER TABLE p ADD CONSTRAINT sane CHECK (v <> '${SECRET}')`),
    write: INSERT,
    says: /"public\.p" was refused by "sane"/,
    heals: false,
    cure: at("ALTER TABLE p DROP CONSTRAINT sane"),
  },
  {
    kind: "missing table",
    table: PLAIN,
    spoil: at("DROP TABLE p"),
    write: INSERT,
    says: /"public\.p": there is no such table here/,
    heals: true,
    cure: at(PLAIN),
  },
  {
    kind: "missing column",
    table: PLAIN,
    spoil: at("ALTER TABLE p DROP v"),
    write: INSERT,
    says: /"public\.p": column "v" does not exist here/,
    heals: true,
    cure: at("ALTER TABLE p ADD v text"),
  },
  {
    kind: "type",
    table: PLAIN,
    spoil: at("ALTER TABLE p ALTER v TYPE int USING 0"),
    write: INSERT,
    says: /insert into "public\.p" .*SQLSTATE 22P02/,
    heals: false,
    cure: at("ALTER TABLE p ALTER v TYPE text"),
  },
  {
    kind: "trigger error",
    table: PLAIN,
    spoil: at(`${raising("refuse", "P0001")}; CREATE TRIGGER refuse BEFORE INSERT ON p FOR EACH ROW
      EXECUTE PROCEDURE refuse(); ALTER TABLE p ENABLE ALWAYS TRIGGER refuse`),
    write: INSERT,
    says: /"public\.p" .* by function public\.refuse\(\) \(SQLSTATE P0001/,
    heals: false,
    cure: at("DROP TRIGGER refuse ON p"),
  },
  {
    kind: "row too large",
    table: PLAIN,
    spoil: at("ALTER TABLE p ALTER v SET STORAGE PLAIN"),
    write: `INSERT INTO p VALUES (1, repeat('${SECRET}', 1000))`,
    says: /"public\.p" .*row is too big/,
    heals: false,
    cure: at("ALTER TABLE p ALTER v SET STORAGE EXTENDED"),
  },
  {
    kind: "deferred constraint",
    table: PLAIN,
    spoil: at(`${raising("late", "23514")}; CREATE CONSTRAINT TRIGGER late AFTER INSERT ON p
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE PROCEDURE late();
      ALTER TABLE p ENABLE ALWAYS TRIGGER late`),
    write: INSERT,
    says: /Cannot commit .* by function public\.late\(\) \(SQLSTATE 23514/,
    heals: false,
    cure: at("DROP TRIGGER late ON p"),
  },
  {
    kind: "lock timeout",
    table: PLAIN,
    spoil: (_, session) =>
      session.query("BEGIN; LOCK TABLE p IN ROW EXCLUSIVE MODE; LOCK TABLE p IN SHARE MODE"),
    write: INSERT,
    says: /lock timeout/,
    heals: true,
    cure: (_, session) => session.query("ROLLBACK"),
  },
  {
    kind: "deadlock",
    table: `${PLAIN}; INSERT INTO p VALUES (1, 'a'), (2, 'b')`,
    spoil: (_, session) => session.query("BEGIN; SELECT FROM p WHERE id = 2 FOR UPDATE"),
    write: `UPDATE p SET v = '${SECRET}' WHERE id = 1; UPDATE p SET v = '${SECRET}' WHERE id = 2`,
    meanwhile: async ({ to }, session) => {
      await eventually("apply to wait for a row", async () => {
        const { rowCount } = await to.client.query(
          "SELECT FROM pg_stat_activity WHERE application_name LIKE 'mmlite apply%' AND wait_event_type = 'Lock'",
        );
        return rowCount === 1;
      });
      // Waits for the row that apply has, until apply gives way.
      await session.query("SELECT FROM p WHERE id = 1 FOR UPDATE");
    },
    says: /deadlock detected/,
    heals: true,
    cure: (_, session) => session.query("ROLLBACK"),
  },
  {
    kind: "disk full",
    table: PLAIN,
    spoil: async ({ to, disk }) => {
      if (disk !== undefined) {
        await to.client.query(`CREATE TABLESPACE small LOCATION '${disk.directory}'`);
        await to.client.query(`DROP TABLE p; ${PLAIN} TABLESPACE small`);
      } else {
        await to.client.query(
          `${raising("no_room", "53100")}; CREATE TRIGGER no_room BEFORE INSERT ON p FOR EACH ROW
          EXECUTE PROCEDURE no_room(); ALTER TABLE p ENABLE ALWAYS TRIGGER no_room`,
        );
      }
    },
    write: `INSERT INTO p SELECT g, repeat('${SECRET}', 100) FROM generate_series(1, 2000) g`,
    says: /No space left on device|SQLSTATE 53100/,
    heals: true,
    cure: async ({ to, disk }) => {
      if (disk !== undefined) await disk.grow();
      else await to.client.query("DROP TRIGGER no_room ON p");
    },
  },
];

/** Kinds that block until somebody or something makes them fit; the others are tried again at once. */
const BLOCKING = ["apply_failed", "schema_mismatch"];

/** Two nodes that replicate to each other. */
export async function openPoisonBed(
  name: string,
  { sender, receiver, schema = "", extraArgs }: {
    readonly sender: PostgresServer;
    readonly receiver: PostgresServer;
    /** Of both, besides `plain`. */
    readonly schema?: string;
    /** Of the receiving node. */
    readonly extraArgs?: readonly string[];
  },
): Promise<PoisonBed> {
  await using stack = new AsyncDisposableStack();
  const tables = `CREATE TABLE plain (id int PRIMARY KEY); ${schema}`;
  const cluster: Cluster = await startCluster(name, [
    { server: sender, name: "ams", schema: tables },
    { server: receiver, name: "fra", schema: tables, extraArgs },
  ]);
  stack.use(cluster);
  const disk = await openSmallDisk();
  if (disk !== undefined) stack.use(disk);
  const [from, to] = cluster.members;
  const owned = stack.move();
  return { from, to, disk, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What the receiver says of what comes from the sender. */
// deno-lint-ignore no-explicit-any
export async function inboundOf({ from, to }: PoisonBed): Promise<any> {
  return (await to.node.api("GET", `/v1/peers/${from.node.name}`)).json.inbound;
}

/** Writes a row of `plain` at the sender. */
export async function writePlain({ from }: PoisonBed): Promise<number> {
  const { rows } = await from.client.query(
    "INSERT INTO plain SELECT count(*) FROM plain RETURNING id",
  );
  return rows[0].id;
}

/** Waits until the receiver has a row of `plain`. */
export async function plainArrives({ from, to }: PoisonBed, id: number): Promise<void> {
  await eventually(`row ${id} to arrive`, async () => {
    const { rowCount } = await to.client.query("SELECT FROM plain WHERE id = $1", [id]);
    if (rowCount === 1) return true;
    const { json } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
    throw new Error(`${json.state}, ${JSON.stringify(json.last_error)}`);
  });
}

async function hasPlain({ to }: PoisonBed, id: number): Promise<boolean> {
  return (await to.client.query("SELECT FROM plain WHERE id = $1", [id])).rowCount === 1;
}

/** Tries one kind: everything about it that must hold is checked on the way. */
export async function tryPoison(bed: PoisonBed, poison: Poison): Promise<PoisonOutcome> {
  const { from, to } = bed;
  const name = from.node.name;
  for (const { client } of [from, to]) await client.query(`DROP TABLE IF EXISTS p; ${poison.table}`);
  await publishes(from, "p");
  const session = await to.server.connect(to.database);
  try {
    await poison.spoil(bed, session);
    const before = await writePlain(bed);
    await from.client.query(`BEGIN; ${poison.write}; COMMIT`);
    const after = await writePlain(bed);
    await poison.meanwhile?.(bed, session);
    const { inbound, error } = await seen(bed, poison);
    await plainArrives(bed, before);
    const blocks = BLOCKING.includes(error.kind);
    assert.equal(blocks && error.kind !== "schema_mismatch", !poison.heals, error.message);
    const status = `${blocks ? inbound.state : "tried again"}, ${error.kind}: ${error.message}`;
    const outcome = blocks
      ? await skipAndRetry(bed, poison, { after, lsn: inbound.blocked_lsn, session })
      : await heals(bed, poison, { after, session });
    await plainArrives(bed, after);
    await sameRows(bed);
    return { kind: poison.kind, status, ...outcome };
  } finally {
    await session.end();
  }

  /** The error that status shows once it is the poison's. */
  // deno-lint-ignore no-explicit-any
  async function seen(bed: PoisonBed, { says }: Poison): Promise<{ inbound: any; error: any }> {
    return await eventually(`status to say ${says}`, async () => {
      const inbound = await inboundOf(bed);
      const error = inbound.last_error;
      if (!says.test(error?.message ?? "")) throw new Error(JSON.stringify(inbound));
      const { json: link } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
      if (BLOCKING.includes(error.kind) && (inbound.blocked_lsn === null || link.state !== "blocked")) {
        throw new Error(`${link.state}, ${inbound.blocked_lsn}`);
      }
      assert.doesNotMatch(JSON.stringify([inbound, link]), new RegExp(SECRET));
      return { inbound, error };
    }, { timeoutMs: 40_000 });
  }

  async function skipAndRetry(
    bed: PoisonBed,
    { cure }: Poison,
    { after, lsn, session }: { after: number; lsn: string; session: pg.Client },
  ): Promise<{ skip: string; retry: string }> {
    assert.equal(await hasPlain(bed, after), false, "what comes behind waits");
    const skipped = await to.node.cli("peers", "skip", name);
    assert.equal(skipped.code, 0, skipped.stderr);
    await plainArrives(bed, after);
    const [entry, ...others] = (await to.node.api("GET", "/v1/quarantine")).json.items;
    assert.deepEqual([others, entry.origin, entry.commit_lsn], [[], name, lsn]);
    assert.doesNotMatch(JSON.stringify(entry), new RegExp(SECRET));
    const { json: shown } = await to.node.api("GET", `/v1/quarantine/${entry.id}`);
    assert.ok(JSON.stringify(shown.rows.items).includes(SECRET));
    assert.equal(shown.rows.items.length, entry.changes);
    const again = await to.node.api("POST", `/v1/quarantine/${entry.id}/retry`);
    assert.equal(again.status, 409, JSON.stringify(again.json));
    assert.ok(poison.says.test(again.json.detail), again.json.detail);
    assert.match(again.json.hint, /mmlite quarantine retry/);
    const [kept] = (await to.node.api("GET", "/v1/quarantine")).json.items;
    assert.deepEqual([kept.id, kept.changes, kept.error.message], [
      entry.id,
      entry.changes,
      again.json.detail,
    ]);
    await cure(bed, session);
    const done = await to.node.cli("quarantine", "retry", entry.id);
    assert.equal(done.code, 0, done.stderr);
    assert.deepEqual((await to.node.api("GET", "/v1/quarantine")).json.items, []);
    assert.doesNotMatch(await to.node.log(), new RegExp(SECRET));
    const tables = [...new Set(shown.rows.items.map(({ table }: { table: string }) => table))];
    return {
      skip: `kept changes: ${entry.changes} of ${
        tables.join(", ")
      } as ${kept.commit_lsn}, neighbours applied`,
      retry:
        `409 ${again.json.kind} while the cause stays; applied once it is gone, at its own time and origin`,
    };
  }

  async function heals(
    bed: PoisonBed,
    { cure }: Poison,
    { after, session }: { after: number; session: pg.Client },
  ): Promise<{ skip: string; retry: string }> {
    const { status, json } = await to.node.api("POST", `/v1/peers/${name}/skip`, { lsn: "0/1" });
    assert.deepEqual([status, json.kind], [409, "conflict"], JSON.stringify(json));
    assert.equal((await inboundOf(bed)).blocked_lsn, null);
    await cure(bed, session);
    await plainArrives(bed, after);
    return {
      skip: "refused, 409: no transaction is blocked",
      retry: "goes on by itself once the cause is gone",
    };
  }
}

/** Rows, commit times and origins: those at the sender are its own, those at the receiver the sender's. */
async function sameRows({ from, to }: PoisonBed): Promise<void> {
  const rowsOf = async ({ client }: ClusterMember) =>
    (await client.query("SELECT id, md5(v), pg_xact_commit_timestamp(xmin) AS at FROM p ORDER BY id")).rows;
  const written = await rowsOf(from);
  const arrived = await rowsOf(to);
  assert.deepEqual(arrived, written);
  if (to.server.major < 14) return;
  const { rows } = await to.client.query(
    `SELECT DISTINCT roname FROM p, LATERAL pg_xact_commit_timestamp_origin(xmin) o, pg_replication_origin r
      WHERE r.roident = o.roident`,
  );
  assert.deepEqual(rows, [{ roname: `mmlite_${from.node.name}` }]);
}

/** Waits until a table, as it is now, is published. */
async function publishes({ client, node }: ClusterMember, table: string): Promise<void> {
  await eventually(`${node.name} to publish ${table}`, async () => {
    const { rowCount } = await client.query("SELECT FROM pg_publication_tables WHERE tablename = $1", [
      table,
    ]);
    return rowCount === 1;
  });
}
