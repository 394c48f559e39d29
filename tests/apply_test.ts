/**
 * Every shape of a change, recorded from a real slot of PostgreSQL 18 and applied to servers of several releases.
 */
import assert from "node:assert/strict";
import { ApplyPair, type PairOptions, type Seen } from "./support/apply_pair.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "./support/postgres.ts";

const TARGETS: readonly PostgresMajor[] = [10, 13, 18];

/** One shape: how both sides begin, what the source commits, and what is expected of the target. */
interface Case {
  readonly name: string;
  readonly schema: string;
  readonly targetSchema?: string;
  readonly publish?: string;
  /** Oldest target that has what the case needs. */
  readonly since?: PostgresMajor;
  /** Run at the target before the changes come. */
  readonly before?: string;
  readonly changes: readonly string[];
  /** Compared on both sides. */
  readonly same?: string;
  /** Compared with `rows`, at the target. */
  readonly query?: string;
  readonly rows?: readonly string[];
  readonly conflicts?: readonly string[];
}

const FULL = (table: string) => `ALTER TABLE ${table} REPLICA IDENTITY FULL;`;
/** Does not compress, so that it is stored out of line. */
const LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 300) g)";

const CASES: readonly Case[] = [
  {
    name: "an existing key is overwritten and counted",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text)",
    before: "INSERT INTO t VALUES (1, 'here')",
    changes: ["INSERT INTO t VALUES (1, 'there'), (2, 'new')"],
    same: "SELECT * FROM t ORDER BY id",
    conflicts: ["insert_exists"],
  },
  {
    name: "an existing row that is nothing but its key is counted",
    schema: "CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))",
    before: "INSERT INTO t VALUES (1, 1)",
    changes: ["INSERT INTO t VALUES (1, 1), (1, 2)", "DELETE FROM t WHERE b = 2", "UPDATE t SET b = 3"],
    same: "SELECT * FROM t",
    conflicts: ["insert_exists"],
  },
  {
    name: "a missing row on update is inserted, on delete it is nothing",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    before: "DELETE FROM t",
    changes: ["UPDATE t SET v = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 2"],
    same: "SELECT * FROM t",
    conflicts: ["update_missing", "delete_missing"],
  },
  {
    name: "a changed key moves the row, keeps extra columns and evicts who is in the way",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (5, 'e')",
    targetSchema: "ALTER TABLE t ADD extra text DEFAULT 'd'; UPDATE t SET extra = 'kept'",
    before: "INSERT INTO t VALUES (2, 'local')",
    changes: ["UPDATE t SET id = 2 WHERE id = 1", "UPDATE t SET id = 6, v = 'f' WHERE id = 5"],
    query: "SELECT * FROM t ORDER BY id",
    rows: ["(2,a,kept)", "(6,f,kept)"],
    conflicts: ["update_exists"],
  },
  {
    name: "a changed key of a missing row inserts it",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (5, 'e')",
    before: "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (2, 'local')",
    changes: ["UPDATE t SET id = 2 WHERE id = 1"],
    same: "SELECT * FROM t ORDER BY id",
    conflicts: ["update_exists", "update_missing"],
  },
  {
    name: "an unchanged TOAST value stays",
    schema: `CREATE TABLE t (id int PRIMARY KEY, v int, long text); INSERT INTO t SELECT g, 1, ${LONG}
      FROM generate_series(1, 2) g`,
    before: "DELETE FROM t WHERE id = 2",
    changes: ["UPDATE t SET v = 2", "UPDATE t SET id = 3, v = 3 WHERE id = 1"],
    query: "SELECT id, v, length(long) FROM t",
    rows: ["(3,3,9600)"],
    conflicts: ["update_missing"],
  },
  {
    name: "an unchanged TOAST value comes from the whole old row",
    schema: `CREATE TABLE t (id int PRIMARY KEY, v int, long text); ${FULL("t")}
      INSERT INTO t SELECT g, 1, ${LONG} FROM generate_series(1, 2) g`,
    before: "DELETE FROM t WHERE id = 2",
    changes: ["UPDATE t SET v = 2"],
    same: "SELECT * FROM t ORDER BY id",
    conflicts: ["update_missing"],
  },
  {
    name: "a TOASTed key finds its row",
    schema: `CREATE TABLE t (k text PRIMARY KEY, v int);
      INSERT INTO t SELECT left(${LONG}, 2600) || g, 1 FROM generate_series(1, 2) g`,
    changes: ["UPDATE t SET v = 2 WHERE k LIKE '%1'", "UPDATE t SET k = 'short' WHERE k LIKE '%2'"],
    same: "SELECT * FROM t ORDER BY v",
  },
  {
    name: "identity full without key touches exactly one of equal rows",
    schema: `CREATE TABLE t (a int, b text, j json, p point); ${FULL("t")}
      INSERT INTO t VALUES (1, 'x', '{"a": 1 }', '(0.1,2)'), (1, 'x', '{"a": 1 }', '(0.1,2)'),
        (1, NULL, NULL, NULL), (1, NULL, NULL, NULL), (NULL, 'y', '[]', '(1,1)')`,
    changes: [
      "UPDATE t SET b = 'z' WHERE ctid = (SELECT ctid FROM t WHERE b = 'x' LIMIT 1)",
      "DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE b IS NULL LIMIT 1)",
      "UPDATE t SET a = 2 WHERE a IS NULL",
    ],
    same: "SELECT a, b, j::text, p::text FROM t ORDER BY a, b",
  },
  {
    name: "identity full uses the local primary key and sees it change",
    schema: `CREATE TABLE t (id int PRIMARY KEY, v text); ${
      FULL("t")
    } INSERT INTO t VALUES (1, 'a'), (2, 'b')`,
    before: "UPDATE t SET v = 'differs'",
    changes: [
      "UPDATE t SET v = 'x' WHERE id = 1",
      "UPDATE t SET id = 3 WHERE id = 2",
      "DELETE FROM t WHERE id = 1",
    ],
    same: "SELECT * FROM t ORDER BY id",
    conflicts: ["update_origin_differs", "update_origin_differs"],
  },
  {
    name: "an index as identity",
    schema: `CREATE TABLE t (id int PRIMARY KEY, u text NOT NULL UNIQUE, v int);
      ALTER TABLE t REPLICA IDENTITY USING INDEX t_u_key; INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1)`,
    changes: ["UPDATE t SET v = 2", "UPDATE t SET u = 'c' WHERE id = 2", "DELETE FROM t WHERE id = 1"],
    same: "SELECT * FROM t",
  },
  {
    name: "a deferrable primary key cannot decide ON CONFLICT",
    schema: `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ${FULL("t")}`,
    before: "INSERT INTO t VALUES (1, 'here')",
    changes: [
      "INSERT INTO t VALUES (1, 'there'), (2, 'b')",
      "UPDATE t SET v = 'x' WHERE id = 2",
      "UPDATE t SET id = id + 10",
      "DELETE FROM t WHERE id = 11",
    ],
    same: "SELECT * FROM t",
    conflicts: ["insert_exists"],
  },
  {
    name: "a primary key without overlaps cannot decide ON CONFLICT",
    since: 18,
    schema: `CREATE EXTENSION btree_gist;
      CREATE TABLE t (id int, valid daterange, v int, PRIMARY KEY (id, valid WITHOUT OVERLAPS))`,
    before: "INSERT INTO t VALUES (1, '[2020-01-01,2021-01-01)', 0)",
    changes: [
      "INSERT INTO t VALUES (1, '[2020-01-01,2021-01-01)', 1), (1, '[2021-01-01,2022-01-01)', 2)",
      "UPDATE t SET v = 3 WHERE v = 1",
      "UPDATE t SET valid = '[2022-01-01,2023-01-01)' WHERE v = 2",
      "DELETE FROM t WHERE v = 3",
    ],
    same: "SELECT * FROM t",
    conflicts: ["insert_exists"],
  },
  {
    name: "rows that pass a deferrable key on to each other stay apart",
    schema: `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ${FULL("t")}
      INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)`,
    before: "UPDATE t SET v = 'differs' WHERE id = 2",
    changes: ["UPDATE t SET id = 4 - id", "UPDATE t SET id = id + 1", "DELETE FROM t WHERE id = 2"],
    same: "SELECT * FROM t ORDER BY id",
    conflicts: ["update_origin_differs"],
  },
  {
    name: "GENERATED ALWAYS AS IDENTITY in the key",
    schema: "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
    targetSchema: "ALTER TABLE t ADD extra text DEFAULT 'd'",
    changes: [
      "INSERT INTO t (v) VALUES ('a'), ('b')",
      "UPDATE t SET v = 'x' WHERE id = 1",
      "UPDATE t SET id = DEFAULT WHERE id = 2",
    ],
    query: "SELECT * FROM t ORDER BY id",
    rows: ["(1,x,d)", "(3,b,d)"],
  },
  {
    name: "GENERATED ALWAYS AS IDENTITY beside the key",
    schema: "CREATE TABLE t (k int PRIMARY KEY, id int GENERATED ALWAYS AS IDENTITY, v text)",
    targetSchema: "ALTER TABLE t ADD extra text DEFAULT 'd'",
    before: "INSERT INTO t (k, id, v, extra) OVERRIDING SYSTEM VALUE VALUES (1, 77, 'here', 'kept')",
    changes: [
      "INSERT INTO t (k, v) VALUES (1, 'a'), (2, 'b')",
      "UPDATE t SET id = DEFAULT, v = 'x' WHERE k = 1",
    ],
    query: "SELECT * FROM t ORDER BY k",
    rows: ["(1,3,x,kept)", "(2,2,b,d)"],
    conflicts: ["insert_exists"],
  },
  {
    name: "GENERATED ALWAYS AS IDENTITY where only the whole row tells",
    schema: `CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, v text); ${FULL("t")}`,
    changes: [
      "INSERT INTO t (v) VALUES ('a'), ('b')",
      "UPDATE t SET v = 'x' WHERE id = 1",
      "UPDATE t SET id = DEFAULT WHERE id = 2",
    ],
    same: "SELECT * FROM t ORDER BY id",
  },
  {
    name: "generated columns are left to the receiver",
    since: 13,
    schema: "CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
    targetSchema: "ALTER TABLE t DROP b, ADD b int GENERATED ALWAYS AS (a * 3) STORED",
    changes: ["INSERT INTO t VALUES (1, 1), (2, 2)", "UPDATE t SET a = 5 WHERE id = 1"],
    query: "SELECT id, a, b FROM t ORDER BY id",
    rows: ["(1,5,15)", "(2,2,6)"],
  },
  {
    name: "rows whose keys differ in a generated column alone stay apart",
    since: 13,
    schema: `CREATE TABLE t (id int, a int, b int GENERATED ALWAYS AS (a * 2) STORED, PRIMARY KEY (id, b))`,
    publish: "publish = 'insert'",
    changes: ["INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (1, 2)"],
    same: "SELECT * FROM t ORDER BY id, a",
  },
  {
    name: "a plain column of the sender may be generated here",
    since: 13,
    schema: "CREATE TABLE t (id int PRIMARY KEY, a int, b int)",
    targetSchema: "ALTER TABLE t DROP b, ADD b int GENERATED ALWAYS AS (a * 3) STORED",
    changes: ["INSERT INTO t VALUES (1, 1, 9)", "UPDATE t SET a = 5, b = 8", "UPDATE t SET id = 2, b = 7"],
    query: "SELECT id, a, b FROM t",
    rows: ["(2,5,15)"],
  },
  {
    name: "keys of domain, enum, composite, array and range types",
    schema: `CREATE DOMAIN d AS int CHECK (VALUE > 0); CREATE TYPE e AS ENUM ('one', 'two');
      CREATE TYPE c AS (x int, y text);
      CREATE TABLE td (k d PRIMARY KEY, v int); CREATE TABLE te (k e PRIMARY KEY, v int);
      CREATE TABLE tc (k c PRIMARY KEY, v int); CREATE TABLE ta (k int[] PRIMARY KEY, v int);
      CREATE TABLE tr (k int4range PRIMARY KEY, v int); CREATE TABLE tv (k varchar(9) PRIMARY KEY, v int);
      CREATE TABLE tn (k numeric PRIMARY KEY, v int)`,
    changes: [
      "INSERT INTO td VALUES (1, 1); INSERT INTO te VALUES ('one', 1); INSERT INTO tc VALUES ((1,'a b'), 1)",
      "INSERT INTO ta VALUES ('{1,NULL}', 1); INSERT INTO tr VALUES ('[1,5)', 1)",
      "INSERT INTO tv VALUES ('q', 1); INSERT INTO tn VALUES (1.0, 1)",
      "UPDATE td SET v = 2; UPDATE te SET v = 2; UPDATE tc SET v = 2; UPDATE ta SET v = 2; UPDATE tr SET v = 2",
      "UPDATE tv SET k = 'r'; UPDATE tn SET k = 1.000",
      "UPDATE td SET k = 3; UPDATE te SET k = 'two'; UPDATE tc SET k = (2,NULL); UPDATE ta SET k = '{}'",
    ],
    same: `SELECT k::text, v FROM td UNION ALL SELECT k::text, v FROM te UNION ALL SELECT k::text, v FROM tc
      UNION ALL SELECT k::text, v FROM ta UNION ALL SELECT k::text, v FROM tr UNION ALL SELECT k, v FROM tv
      UNION ALL SELECT k::text, v FROM tn`,
  },
  {
    name: "operators of extensions are found without a search path",
    schema: `CREATE EXTENSION citext; CREATE TABLE t (k citext PRIMARY KEY, v int);
      CREATE TABLE f (k citext, v int); ${FULL("f")}`,
    before: "INSERT INTO t VALUES ('ABC', 0)",
    changes: [
      "INSERT INTO t VALUES ('abc', 1); INSERT INTO f VALUES ('x', 1)",
      "UPDATE t SET v = 2; UPDATE f SET v = 2",
      "UPDATE t SET k = 'aBc'",
    ],
    query: "SELECT k, v FROM t UNION ALL SELECT k, v FROM f",
    rows: ["(aBc,2)", "(x,2)"],
    conflicts: ["insert_exists"],
  },
  {
    name: "names in need of quotes",
    schema: `CREATE SCHEMA "Sel""ect"; CREATE TABLE "Sel""ect"."t.a b'le" ("user" int PRIMARY KEY, "t" text,
      "a""b" text, "näme $1" text, u int)`,
    changes: [
      `INSERT INTO "Sel""ect"."t.a b'le" VALUES (1, 'a', 'b', 'c', 1), (2, 'a', 'b', 'c', 1)`,
      `UPDATE "Sel""ect"."t.a b'le" SET t = 'x', u = 2 WHERE "user" = 1`,
      `UPDATE "Sel""ect"."t.a b'le" SET "user" = 3 WHERE "user" = 2`,
    ],
    same: `SELECT * FROM "Sel""ect"."t.a b'le" ORDER BY 1`,
  },
  {
    name: "a table without columns",
    schema: `CREATE TABLE t (); ${FULL("t")}`,
    changes: [
      "INSERT INTO t DEFAULT VALUES",
      "INSERT INTO t DEFAULT VALUES",
      "DELETE FROM t WHERE ctid = (SELECT min(ctid::text)::tid FROM t)",
    ],
    same: "SELECT count(*) FROM t",
  },
  {
    name: "a table of 1,600 columns",
    schema: `DO $$ BEGIN EXECUTE 'CREATE TABLE t (c1 int PRIMARY KEY, ' ||
      (SELECT string_agg('c' || g || ' bool', ', ') FROM generate_series(2, 1600) g) || ')'; END $$`,
    changes: [
      "INSERT INTO t (c1, c2, c1600) VALUES (1, true, false), (2, true, false)",
      "UPDATE t SET c1599 = true, c1600 = NULL",
      "UPDATE t SET c1 = 3 WHERE c1 = 2",
      "DELETE FROM t WHERE c1 = 1",
    ],
    same: "SELECT * FROM t",
  },
  {
    name: "columns in another order and of a wider type",
    schema: "CREATE TABLE t (id int PRIMARY KEY, a int, b text)",
    targetSchema:
      "DROP TABLE t; CREATE TABLE t (b varchar(20), z int DEFAULT 5, a numeric, id bigint PRIMARY KEY)",
    changes: ["INSERT INTO t VALUES (1, 2, 'three')", "UPDATE t SET a = 4"],
    query: "SELECT id, a, b, z FROM t",
    rows: ["(1,4,three,5)"],
  },
  {
    name: "truncate of several tables at once, with their sequences",
    schema: `CREATE TABLE p (id serial PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p);
      INSERT INTO p DEFAULT VALUES; INSERT INTO c VALUES (1, 1)`,
    changes: ["TRUNCATE p, c RESTART IDENTITY", "INSERT INTO c VALUES (7, NULL)"],
    query: "SELECT (SELECT count(*) FROM p), (SELECT min(id) FROM c), nextval('p_id_seq')",
    rows: ["(0,7,1)"],
  },
  {
    name: "a partition that the sender names is a plain table here",
    schema: `CREATE TABLE t (id int, v text) PARTITION BY RANGE (id);
      CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
      CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20);
      ALTER TABLE t_1 ADD PRIMARY KEY (id); ALTER TABLE t_2 ADD PRIMARY KEY (id)`,
    before: "INSERT INTO t VALUES (1, 'here')",
    changes: [
      "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (11, 'c')",
      "UPDATE t_1 SET v = 'x' WHERE id = 2",
      "UPDATE t_1 SET id = 3 WHERE id = 2",
      "DELETE FROM t_1 WHERE id = 1",
    ],
    same: "SELECT tableoid::regclass, * FROM t ORDER BY id",
    conflicts: ["insert_exists"],
  },
  {
    name: "a root that the sender names is partitioned here",
    publish: "publish_via_partition_root = true",
    schema: `CREATE TABLE t (id int, v text) PARTITION BY RANGE (id);
      CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
      CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20)`,
    // A partitioned table has no index of its own before PostgreSQL 11.
    targetSchema: `DO $$ BEGIN IF current_setting('server_version_num')::int >= 110000 THEN
      ALTER TABLE t ADD PRIMARY KEY (id); END IF; END $$`,
    before: "INSERT INTO t VALUES (1, 'here')",
    changes: [
      "ALTER TABLE t ADD PRIMARY KEY (id)",
      "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (11, 'c')",
      "UPDATE t SET v = 'x' WHERE id = 2",
      "DELETE FROM t WHERE id = 1",
    ],
    same: "SELECT tableoid::regclass, * FROM t ORDER BY id",
    conflicts: ["insert_exists"],
  },
  {
    name: "a partitioned table here where only the whole row tells",
    publish: "publish_via_partition_root = true",
    schema: `CREATE TABLE t (id int, v text) PARTITION BY RANGE (id);
      CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
      CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20);`,
    changes: [
      "ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t_1 REPLICA IDENTITY FULL; ALTER TABLE t_2 REPLICA IDENTITY FULL",
      "INSERT INTO t VALUES (1, 'a'), (1, 'a'), (11, 'a'), (11, 'a')",
      "DELETE FROM t_1 WHERE ctid = (SELECT min(ctid::text)::tid FROM t_1)",
      "UPDATE t_2 SET v = 'b' WHERE ctid = (SELECT min(ctid::text)::tid FROM t_2)",
      "TRUNCATE t_1",
      "DELETE FROM t WHERE id = 1",
    ],
    query: "SELECT tableoid::regclass, * FROM t ORDER BY id, v",
    rows: ["(t_1,1,a)", "(t_2,11,a)", "(t_2,11,b)"],
  },
  {
    name: "row and statement triggers stay quiet, foreign keys are not asked",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE c (id int PRIMARY KEY, t int)",
    targetSchema: `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trigger'; END $$;
      CREATE TRIGGER r BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE no();
      CREATE TRIGGER s AFTER INSERT ON t FOR EACH STATEMENT EXECUTE PROCEDURE no();
      ALTER TABLE c ADD FOREIGN KEY (t) REFERENCES t`,
    changes: ["INSERT INTO c VALUES (1, 1)", "INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 2"],
    same: "SELECT * FROM t",
  },
];

for (const major of TARGETS) {
  Deno.test(`PostgreSQL ${major} takes every shape of a change`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using other = major === 18 ? null : await startPostgres({ major });
    const target = other ?? source;
    for (const [i, shape] of CASES.entries()) {
      if (major < (shape.since ?? 10)) continue;
      await t.step(shape.name, () => check(shape, { source, target, name: `c${i}` }));
    }
  });
}

async function check(shape: Case, servers: { source: PostgresServer; target: PostgresServer; name: string }) {
  const { schema, targetSchema, publish } = shape;
  await using pair = await ApplyPair.open({ ...servers, schema, targetSchema, publish } as PairOptions);
  if (shape.before !== undefined) await pair.target.query(shape.before);
  const seen: Seen = await pair.replicate(...shape.changes);
  if (shape.same !== undefined) {
    const [there, here] = await pair.both(shape.same);
    assert.deepEqual(here, there);
  }
  if (shape.query !== undefined) assert.deepEqual(await pair.rows(shape.query), shape.rows);
  // Transactions that come together are applied with their deletes first.
  assert.deepEqual(seen.conflicts.toSorted(), (shape.conflicts ?? []).toSorted());
}
