/**
 * Two nodes that give a second unique key to different rows at the same time end with the same rows, whichever hears of
 * the other first.
 */
import assert from "node:assert/strict";
import { arrived, type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { startPostgres } from "./support/postgres.ts";

interface Case {
  readonly name: string;
  /** What both have. */
  readonly rows: string;
  /** What is written while nothing is exchanged, in this order. */
  readonly writes: readonly (readonly [node: "a" | "b", sql: string])[];
  readonly ends: readonly string[];
}

const CASES: readonly Case[] = [
  {
    name: "insert, insert",
    rows: "",
    writes: [["a", "INSERT INTO T VALUES (1, 'x')"], ["b", "INSERT INTO T VALUES (2, 'x')"]],
    ends: ["(2,x)"],
  },
  {
    name: "update, update",
    rows: "(1, 'o'), (2, 'p')",
    writes: [["a", "UPDATE T SET v = 'x' WHERE id = 1"], ["b", "UPDATE T SET v = 'x' WHERE id = 2"]],
    ends: ["(2,x)"],
  },
  {
    name: "update, insert",
    rows: "(1, 'o')",
    writes: [["a", "UPDATE T SET v = 'x'"], ["b", "INSERT INTO T VALUES (2, 'x')"]],
    ends: ["(2,x)"],
  },
  {
    name: "insert, update",
    rows: "(1, 'o')",
    writes: [["a", "INSERT INTO T VALUES (2, 'x')"], ["b", "UPDATE T SET v = 'x'"]],
    ends: ["(1,x)"],
  },
  {
    name: "key, insert",
    rows: "(1, 'o')",
    writes: [["a", "UPDATE T SET id = 5, v = 'x'"], ["b", "INSERT INTO T VALUES (2, 'x')"]],
    ends: ["(2,x)"],
  },
  {
    name: "insert, key",
    rows: "(1, 'o')",
    writes: [["a", "INSERT INTO T VALUES (2, 'x')"], ["b", "UPDATE T SET id = 5, v = 'x'"]],
    ends: ["(5,x)"],
  },
  {
    name: "an update that loses by its second key, and another one after it",
    rows: "(1, 'o')",
    writes: [
      ["a", "UPDATE T SET v = 'x'"],
      ["b", "INSERT INTO T VALUES (2, 'x')"],
      ["a", "UPDATE T SET v = 'z'"],
    ],
    ends: ["(1,z)", "(2,x)"],
  },
  {
    // As if one had been written after the other: the second took the value from the first, the third overwrote it.
    name: "an insert that takes the value of another row, and loses to a newer one by its key",
    rows: "",
    writes: [
      ["b", "INSERT INTO T VALUES (2, 'x')"],
      ["a", "INSERT INTO T VALUES (1, 'x')"],
      ["b", "INSERT INTO T VALUES (1, 'y')"],
    ],
    ends: ["(1,y)"],
  },
];
const ORDERS = ["a", "b"] as const;

const SCHEMA = CASES.map(({ rows }, i) => {
  const filled = rows === "" ? "" : `INSERT INTO t${i} VALUES ${rows};`;
  return `CREATE TABLE t${i} (id int PRIMARY KEY, v text UNIQUE); ${filled}`;
}).join("\n");

async function rest({ members: [a, b] }: Cluster): Promise<void> {
  await a.node.api("POST", `/v1/peers/${b.node.name}/pause`);
  await b.node.api("POST", `/v1/peers/${a.node.name}/pause`);
}

async function letGo(from: ClusterMember, to: ClusterMember): Promise<void> {
  await from.node.api("POST", `/v1/peers/${to.node.name}/resume`);
  await arrived(from, to);
}

async function rowsOf({ client }: ClusterMember, table: string): Promise<string[]> {
  const { rows } = await client.query(`SELECT t::text AS row FROM ${table} t ORDER BY id`);
  return rows.map(({ row }) => row);
}

Deno.test("nodes that give a second unique key twice end equal", async (t) => {
  await using stack = new AsyncDisposableStack();
  const servers = [
    stack.use(await startPostgres({ major: 18 })),
    stack.use(await startPostgres({ major: 13 })),
  ];
  for (const first of ORDERS) {
    const options = servers.map((server, i) => ({ server, name: `${"ab"[i]}${first}`, schema: SCHEMA }));
    await using cluster = await startCluster(`second_${first}`, options);
    const [a, b] = cluster.members;
    await rest(cluster);
    for (const [i, { writes }] of CASES.entries()) {
      for (const [node, sql] of writes) {
        await (node === "a" ? a : b).client.query(sql.replaceAll(/\bT\b/g, `t${i}`));
      }
    }
    const [from, to] = first === "a" ? [a, b] : [b, a];
    await letGo(from, to);
    await letGo(to, from);
    for (const [i, { name, ends }] of CASES.entries()) {
      await t.step(`${name}; what ${first} wrote comes first`, async () => {
        assert.deepEqual([await rowsOf(a, `t${i}`), await rowsOf(b, `t${i}`)], [ends, ends]);
      });
    }
  }
});
