import assert from "node:assert/strict";
import { DEFAULT_POLICY } from "../conflict_policy.ts";
import { MmliteError } from "../errors.ts";
import type { LocalColumn, LocalTable, LocalUniqueIndex } from "../pg/relation.ts";
import type { Relation, ReplicaIdentity } from "../pgoutput/message.ts";
import { mapRelation, type Settlement } from "./relation_map.ts";

const SETTLEMENT: Settlement = { policy: DEFAULT_POLICY, versioned: true, isOwn: "false" };

function remote(columns: string[], keys: string[], replicaIdentity: ReplicaIdentity = "default"): Relation {
  const key = (name: string) => replicaIdentity === "full" || keys.includes(name);
  return {
    kind: "relation",
    relationId: 1,
    schema: "public",
    name: "t",
    replicaIdentity,
    columns: columns.map((name) => ({ name, key: key(name), typeOid: 23, typeModifier: -1 })),
  };
}

function column(name: string, more: Partial<LocalColumn> = {}): LocalColumn {
  return {
    ...{ name, typeOid: 23, typeModifier: -1, typeName: "integer", castIsInput: true, deterministic: true },
    ...{ generated: null, identityAlways: false, equality: "pg_catalog.=" },
    ...more,
  };
}

function index(columns: string[], more: Partial<LocalUniqueIndex> = {}): LocalUniqueIndex {
  return { columns, primary: false, replicaIdentity: false, immediate: true, exclusion: false, ...more };
}

function local(columns: LocalColumn[], uniqueIndexes: LocalUniqueIndex[], kind = "r"): LocalTable {
  return {
    oid: 1,
    schema: "public",
    name: "t",
    kind,
    columns,
    uniqueIndexes,
    exclusions: [],
    firesOnApply: false,
    root: null,
  };
}

/** The key's column names and whether ON CONFLICT can decide by it. */
function keyOf(theirs: Relation, ours: LocalTable): [string[], boolean] | null {
  const { key } = mapRelation(theirs, ours, SETTLEMENT);
  return key && [key.columns.map((c) => c.name), key.arbiter];
}

const PRIMARY = index(["id"], { primary: true });

Deno.test("columns are found by name, whatever their order, and extra ones are told", () => {
  const map = mapRelation(
    remote(["id", "v"], ["id"]),
    local([
      column("v", { typeOid: 25 }),
      column("extra"),
      column("sum", { generated: "id + 1" }),
      column("id"),
    ], [
      PRIMARY,
    ]),
    SETTLEMENT,
  );
  assert.deepEqual(map.columns.map((c) => [c.index, c.name, c.typeOid]), [[0, "id", 23], [1, "v", 25]]);
  assert.deepEqual(map.extraColumns, ["extra"]);
});

Deno.test("the sender's key counts where it has one", () => {
  const ours = local([column("id"), column("u")], [PRIMARY, index(["u"])]);
  assert.deepEqual(keyOf(remote(["id", "u"], ["id"]), ours), [["id"], true]);
  assert.deepEqual(keyOf(remote(["id", "u"], ["u"], "index"), ours), [["u"], true]);
  assert.deepEqual(keyOf(remote(["id", "u"], ["id", "u"]), ours), [["id", "u"], false]);
});

Deno.test("with identity full the local primary key counts, then the local identity index, then the whole row", () => {
  const full = remote(["id", "u"], [], "full");
  const columns = [column("id"), column("u"), column("here")];
  const identity = index(["u"], { replicaIdentity: true });
  assert.deepEqual(keyOf(full, local(columns, [identity, PRIMARY])), [["id"], true]);
  assert.deepEqual(keyOf(full, local(columns, [index(["here"], { primary: true }), identity])), [
    ["u"],
    true,
  ]);
  assert.equal(keyOf(full, local(columns, [index(["id"])])), null);
});

Deno.test("a deferrable index cannot decide ON CONFLICT, even beside one that can", () => {
  const deferrable = index(["id"], { primary: true, immediate: false });
  const theirs = remote(["id"], ["id"]);
  assert.deepEqual(keyOf(theirs, local([column("id")], [deferrable])), [["id"], false]);
  assert.deepEqual(keyOf(theirs, local([column("id")], [deferrable, index(["id"])])), [["id"], false]);
});

Deno.test("a key without overlaps cannot decide ON CONFLICT, a plain index beside it can", () => {
  const temporal = index(["id"], { primary: true, exclusion: true });
  const theirs = remote(["id"], ["id"]);
  assert.deepEqual(keyOf(theirs, local([column("id")], [temporal])), [["id"], false]);
  assert.deepEqual(keyOf(theirs, local([column("id")], [temporal, index(["id"])])), [["id"], true]);
});

Deno.test("what a sender announces of a key with generated columns is not taken for the key", () => {
  const columns = [column("id"), column("sum", { generated: "id + 1" }), column("v")];
  const key = index(["id", "sum"], { primary: true });
  assert.equal(keyOf(remote(["id", "v"], ["id"]), local(columns, [key])), null);
  assert.deepEqual(keyOf(remote(["id", "v"], ["id"]), local(columns, [PRIMARY, index(["id", "sum"])])), [[
    "id",
  ], true]);
});

Deno.test("sets are for tables where nothing sees the difference and a key has one text", () => {
  const theirs = (typeOid = 23, typeModifier = -1): Relation => {
    const relation = remote(["id", "v"], ["id"]);
    return { ...relation, columns: relation.columns.map((one) => ({ ...one, typeOid, typeModifier })) };
  };
  const bySets = (relation: Relation, ours: LocalTable) => mapRelation(relation, ours, SETTLEMENT).bySets;
  const ours = (more: Partial<LocalColumn> = {}) => local([column("id", more), column("v")], [PRIMARY]);
  assert.equal(bySets(theirs(), ours()), true);
  assert.equal(bySets(theirs(), ours({ typeOid: 20 })), false, "another type");
  assert.equal(bySets(theirs(25), ours({ typeOid: 25 })), true, "text");
  assert.equal(bySets(theirs(25), ours({ typeOid: 25, deterministic: false })), false, "a loose collation");
  assert.equal(bySets(theirs(1700), ours({ typeOid: 1700 })), false, "1.0 and 1.00 are one number");
  assert.equal(
    bySets(theirs(1700, 655_366), ours({ typeOid: 1700, typeModifier: 655_366 })),
    true,
    "of one scale",
  );
  assert.equal(bySets(theirs(701), ours({ typeOid: 701 })), false, "a float");
  assert.equal(bySets(theirs(), ours({ castIsInput: false })), false, "a cast of the user's");
  assert.equal(bySets(theirs(), { ...ours(), firesOnApply: true }), false, "a trigger");
  assert.equal(
    bySets(theirs(), local([column("id"), column("v")], [index(["id"], { immediate: false })])),
    false,
  );
  assert.equal(
    bySets(theirs(), local([column("id"), column("v", { identityAlways: true })], [PRIMARY])),
    false,
  );
  assert.equal(
    bySets(theirs(), local([column("id", { identityAlways: true }), column("v")], [PRIMARY])),
    true,
  );
  const keyless = local([column("id"), column("v")], []);
  assert.equal(bySets(remote(["id", "v"], []), keyless), true, "inserts are all that comes");
  assert.equal(bySets(remote(["id", "v"], [], "full"), keyless), false, "rows without key have no version");
});

Deno.test("what does not fit is named", () => {
  const theirs = remote(["id", "v"], ["id"]);
  const errors: [LocalTable | undefined, RegExp][] = [
    [undefined, /"public\.t": there is no such table here/],
    [local([column("id")], [PRIMARY]), /"public\.t": column "v" does not exist here/],
    [local([column("id"), column("v")], [], "m"), /"public\.t": it is a materialized view here/],
  ];
  for (const [ours, message] of errors) {
    assert.throws(
      () => mapRelation(theirs, ours, SETTLEMENT),
      (error) =>
        error instanceof MmliteError && error.kind === "schema_mismatch" && message.test(error.message),
    );
  }
});

Deno.test("no peer writes to the system's schemas or to mmlite's", () => {
  for (const schema of ["mmlite", "pg_catalog", "information_schema"]) {
    assert.throws(
      () => mapRelation({ ...remote(["id"], ["id"]), schema }, local([column("id")], [PRIMARY]), SETTLEMENT),
      (error) => error instanceof MmliteError && error.kind === "refused",
    );
  }
});
