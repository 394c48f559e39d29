/**
 * `deno task conflicts`: each type of conflict between two real nodes, in either order of arrival, under the two
 * policies of which one makes nodes agree and one does not, with what both nodes hold in the end. The last line is one
 * sentence; the exit code is 1 if nodes differ under last_update_wins.
 *
 * Both links rest while both nodes write; then one is let go, and the other once all of the first has arrived. In every
 * case node b writes later than node a.
 */
import process from "node:process";
import { arrived, type Cluster, type ClusterMember, startCluster } from "../tests/support/cluster.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { readOptions } from "./options.ts";
import { formatTable } from "./text_table.ts";

interface Case {
  readonly name: string;
  /** What both have. */
  readonly rows: string;
  /** What each node does, to table `T`. */
  readonly a: string;
  readonly b: string;
  readonly more?: string;
}

const CASES: readonly Case[] = [
  {
    name: "insert, insert",
    rows: "",
    a: "INSERT INTO T VALUES (1, 'a')",
    b: "INSERT INTO T VALUES (1, 'b')",
  },
  { name: "update, update", rows: "(1, 'o')", a: "UPDATE T SET v = 'a'", b: "UPDATE T SET v = 'b'" },
  { name: "update, delete", rows: "(1, 'o')", a: "UPDATE T SET v = 'a'", b: "DELETE FROM T" },
  { name: "delete, update", rows: "(1, 'o')", a: "DELETE FROM T", b: "UPDATE T SET v = 'b'" },
  { name: "delete, delete", rows: "(1, 'o')", a: "DELETE FROM T", b: "DELETE FROM T" },
  { name: "key, insert", rows: "(1, 'o')", a: "UPDATE T SET id = 2", b: "INSERT INTO T VALUES (2, 'b')" },
  {
    name: "insert, key",
    rows: "(1, 'o')",
    a: "INSERT INTO T VALUES (2, 'a')",
    b: "UPDATE T SET id = 2 WHERE id = 1",
  },
  { name: "key, update", rows: "(1, 'o')", a: "UPDATE T SET id = 2", b: "UPDATE T SET v = 'b'" },
  {
    name: "update, truncate",
    rows: "(1, 'o'), (2, 'o')",
    a: "UPDATE T SET v = 'a' WHERE id = 1",
    b: "TRUNCATE T",
  },
  {
    name: "truncate, update",
    rows: "(1, 'o'), (2, 'o')",
    a: "TRUNCATE T",
    b: "UPDATE T SET v = 'b' WHERE id = 1",
  },
  {
    name: "second unique key",
    rows: "",
    more: "UNIQUE (v)",
    a: "INSERT INTO T VALUES (1, 'same')",
    b: "INSERT INTO T VALUES (2, 'same')",
  },
];
const ORDERS = ["a's first", "b's first"] as const;
const POLICIES = ["last_update_wins", "apply_remote"] as const;

const tableName = (index: number, policy: string) => `t${index}_${policy}`;

function schema(): string {
  return CASES.flatMap(({ rows, more = "" }, i) =>
    POLICIES.map((policy) => {
      const name = tableName(i, policy);
      const filled = rows === "" ? "" : `INSERT INTO ${name} VALUES ${rows};`;
      return `CREATE TABLE ${name} (id int PRIMARY KEY, v text${more && ", "}${more}); ${filled}`;
    })
  ).join("\n");
}

async function rest({ members: [a, b] }: Cluster, verb: "pause" | "resume"): Promise<void> {
  await a.node.api("POST", `/v1/peers/${b.node.name}/${verb}`);
  await b.node.api("POST", `/v1/peers/${a.node.name}/${verb}`);
}

async function letGo(from: ClusterMember, to: ClusterMember): Promise<void> {
  await from.node.api("POST", `/v1/peers/${to.node.name}/resume`);
  await arrived(from, to);
}

async function choosePolicies({ members }: Cluster): Promise<void> {
  for (const { node } of members) {
    for (let i = 0; i < CASES.length; i++) {
      for (const policy of POLICIES.slice(1)) {
        const body = { policy, allow_divergence: true };
        await node.api("PUT", `/v1/tables/public.${tableName(i, policy)}`, body);
      }
    }
  }
}

/** Rows, and the conflicts that the node has on record, of a case's table. */
async function outcome({ client }: ClusterMember, table: string): Promise<string> {
  const { rows } = await client.query(`SELECT t::text AS row FROM ${table} t ORDER BY id`);
  const { rows: conflicts } = await client.query(
    "SELECT type || ' ' || resolution AS met FROM mmlite.conflict WHERE table_name = $1 ORDER BY id",
    [table],
  );
  const held = rows.length === 0 ? "no row" : rows.map(({ row }) => row).join(" ");
  return `${held} [${conflicts.map(({ met }) => met).join(", ")}]`;
}

async function main(): Promise<number> {
  readOptions(import.meta.url, {});
  await using stack = new AsyncDisposableStack();
  const servers = [
    stack.use(await startPostgres({ major: 18 })),
    stack.use(await startPostgres({ major: 13 })),
  ];
  const table = [[
    "first, later change",
    "arrives",
    "policy",
    "a holds [conflicts]",
    "b holds [conflicts]",
    "nodes",
  ]];
  let differing = 0;
  for (const order of ORDERS) {
    const database = `conflicts_${ORDERS.indexOf(order)}`;
    const names = ["a", "b"].map((name) => `${name}${ORDERS.indexOf(order)}`);
    await using cluster = await startCluster(
      database,
      servers.map((server, i) => ({ server, name: names[i], schema: schema() })),
    );
    await choosePolicies(cluster);
    await rest(cluster, "pause");
    const [a, b] = cluster.members;
    const each = async ({ client }: ClusterMember, side: "a" | "b") => {
      for (const [i, one] of CASES.entries()) {
        for (const policy of POLICIES) {
          await client.query(one[side].replaceAll(/\bT\b/g, tableName(i, policy)));
        }
      }
    };
    await each(a, "a");
    await each(b, "b");
    const [first, second] = order === "a's first" ? [a, b] : [b, a];
    await letGo(first, second);
    await letGo(second, first);
    for (const [i, { name }] of CASES.entries()) {
      for (const policy of POLICIES) {
        const held = [await outcome(a, tableName(i, policy)), await outcome(b, tableName(i, policy))];
        const isEqual = held[0].split(" [")[0] === held[1].split(" [")[0];
        if (!isEqual && policy === "last_update_wins") differing++;
        table.push([name, order, policy, ...held, isEqual ? "equal" : "differ"]);
      }
    }
  }
  console.log(formatTable(table).join("\n") + "\n");
  console.log(
    differing === 0
      ? `Under last_update_wins both nodes hold the same in all ${CASES.length} cases and both orders.`
      : `Under last_update_wins the nodes differ in ${differing} cases.`,
  );
  return differing === 0 ? 0 : 1;
}

process.exit(await main());
