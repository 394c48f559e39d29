/**
 * Clients that write on every live node, and transactions that stay open; what became of each is known by its row in
 * the table without key.
 */
import { eventually } from "../../tests/support/poll.ts";
import { type RandomInteger, seededIntegers } from "../../tests/support/append_load.ts";
import { delay } from "../../src/backoff.ts";
import { type Keys, type Operation, type PlannedTransaction, planOperations } from "../converge/plan.ts";
import { LOG_TABLE } from "../converge/tables.ts";
import { runClient } from "../converge/writer.ts";
import type { GrowNode } from "./mesh.ts";
import type { OpenTransaction } from "./plan.ts";
import { growKeys } from "./tables.ts";

/** Longest pause between two transactions of a client, milliseconds. */
const PAUSE_MS = 120;
/** The only table that is truncated: the others keep the rows that they begin with. */
const TRUNCATED_TABLE = "pair";

interface Client {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

/** All that write in a round. */
export class Writers {
  /** Transactions that were committed, by their number. */
  readonly committed = new Set<number>();
  /** Transactions that were rolled back. */
  readonly undone = new Set<number>();
  /** The longest that a transaction of a client took, milliseconds, and where. */
  readonly longest = { ms: 0, node: "", during: "" };
  /** What happens meanwhile, for {@link Writers.longest}. */
  during = "";
  readonly #keys: Keys = growKeys();
  readonly #random: RandomInteger;
  readonly #clients = new Map<GrowNode, Client>();
  readonly #open = new Set<Promise<void>>();
  #lastId = 0;

  constructor(seed: number) {
    this.#random = seededIntegers(seed);
  }

  /** Number of the next transaction. */
  nextId(): number {
    return ++this.#lastId;
  }

  /** Begins to write on a node. */
  start(node: GrowNode): void {
    const stop = new AbortController();
    const ended = this.#write(node, stop.signal);
    ended.catch(() => {}); // Whoever stops it is told.
    this.#clients.set(node, { stop, ended });
  }

  /** Stops writing on a node. */
  async stop(node: GrowNode): Promise<void> {
    const client = this.#clients.get(node);
    this.#clients.delete(node);
    client?.stop.abort();
    await client?.ended;
  }

  /** Stops all, and waits for open transactions. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#clients.keys()].map((node) => this.stop(node)));
    await this.closed();
  }

  /** Waits until no transaction is open. */
  async closed(): Promise<void> {
    await Promise.all(this.#open);
  }

  /** Opens a transaction, which ends by itself; it is open when this returns. */
  async open(node: GrowNode, open: OpenTransaction): Promise<void> {
    if (open.isPrepared && !node.planned.prepares) return;
    const id = this.nextId();
    const client = await node.server.connect(node.database);
    const name = `grow_${id}`;
    await client.query("BEGIN");
    await client.query(`INSERT INTO public.${LOG_TABLE} VALUES ($1, $2, NULL)`, [id, node.name]);
    await client.query("INSERT INTO public.plain VALUES ($1, 0, 'open')", [-id]);
    if (open.isPrepared) await client.query(`PREPARE TRANSACTION '${name}'`);
    const ending = (async () => {
      await delay(open.forMs);
      const word = open.commits ? "COMMIT" : "ROLLBACK";
      await client.query(open.isPrepared ? `${word} PREPARED '${name}'` : word);
      await client.end();
      (open.commits ? this.committed : this.undone).add(id);
    })();
    ending.catch(() => {}); // Whoever waits for it is told.
    this.#open.add(ending);
  }

  async #write(node: GrowNode, signal: AbortSignal): Promise<void> {
    const attempts = await runClient(node, 0, this.#transactions(node, signal));
    for (const { id, told, failure } of attempts) {
      if (told) this.committed.add(id);
      else if (failure !== "lost") this.undone.add(id);
    }
  }

  /** Is asked for the next one when the one before it has ended, which tells how long that took. */
  *#transactions(node: GrowNode, signal: AbortSignal): Generator<PlannedTransaction> {
    while (!signal.aborted) {
      const pauseMs = this.#random(0, PAUSE_MS);
      const asked = performance.now();
      yield { id: this.nextId(), pauseMs, operations: this.#operations(node) };
      const ms = performance.now() - asked - pauseMs;
      if (ms > this.longest.ms) Object.assign(this.longest, { ms, node: node.name, during: this.during });
    }
  }

  #operations({ planned }: GrowNode): Operation[] {
    const operations = planOperations(this.#random, {
      ...{ place: 0, major: planned.major, keys: this.#keys, ids: () => this.nextId() },
      options: { apart: false, updatesOnly: false },
    });
    return operations.map((one) => one.kind === "truncate" ? { ...one, table: TRUNCATED_TABLE } : one);
  }
}

/** Time allowed for everything to arrive, milliseconds. */
const SETTLE_TIMEOUT_MS = 90_000;

/**
 * Waits until all that nodes have committed is at all of them; one more transaction of each tells. Others may write on
 * meanwhile.
 */
export async function settle(nodes: readonly GrowNode[], writers: Writers, from = nodes): Promise<void> {
  const ids: number[] = [];
  for (const { name, server, database } of from) {
    const id = writers.nextId();
    await server.sql(database, `INSERT INTO public.${LOG_TABLE} VALUES ($1, $2, NULL)`, [id, name]);
    writers.committed.add(id);
    ids.push(id);
  }
  for (const node of nodes) {
    await eventually(`${node.name} to have everything`, () => hasAll(node, ids, from), {
      timeoutMs: SETTLE_TIMEOUT_MS,
    });
  }
}

async function hasAll(
  { server, database, mmlite }: GrowNode,
  ids: readonly number[],
  from: readonly GrowNode[],
): Promise<boolean> {
  const [{ rows, unsent, looks }] = await server.sql(
    database,
    `SELECT (SELECT count(*)::int FROM public.${LOG_TABLE} WHERE id = ANY ($1)) AS rows,
       (SELECT count(*)::int FROM mmlite.unsent WHERE origin = ANY ($2)) AS unsent,
       (SELECT count(*)::int FROM mmlite.second_look WHERE origin = ANY ($2)) AS looks`,
    [ids, from.map(({ name }) => name)],
  );
  if (rows >= ids.length && unsent + looks === 0) return true;
  const { json } = await mmlite.api("GET", "/v1/status");
  throw new Error(
    `${rows} of ${ids.length} marks, ${unsent} rows awaited, ${looks} to be looked at again, ${
      JSON.stringify(json.problems)
    }`,
  );
}
