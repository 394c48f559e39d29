/**
 * Smaller plans of which one may still go wrong in the same way, so that its history is short.
 */
import { rowKey, splitRowKey } from "./model.ts";
import type { Operation, Plan, PlannedTransaction } from "./plan.ts";
import { keyText } from "./tables.ts";

/** How often a smaller plan is run before it counts as good: what goes wrong depends on moments too. */
const TRIES = 3;

/** A plan and what came of it. */
export interface Tried<Outcome> {
  readonly plan: Plan;
  readonly outcome: Outcome;
}

/** Of a bad outcome, the keys (as `rowKey` makes them) that differ. */
type DifferingKeys<Outcome> = (outcome: Outcome) => readonly string[];

/** A smaller plan, given the keys that differ. */
export type Reduction = (plan: Plan, keys: readonly string[]) => Plan;

/** From what helps most to what helps least. */
const REDUCTIONS: readonly Reduction[] = [
  (plan, keys) => onKeys(plan, keys),
  (plan, keys) => onKeys(plan, keys.slice(0, 1)),
  withoutFaults,
  halved,
  halved,
  halved,
  oneClientEach,
];

/** Takes away whatever can go without the outcome becoming good. */
export async function shrink<Outcome>(
  first: Tried<Outcome>,
  { run, keysOf }: { run: (plan: Plan) => Promise<Outcome>; keysOf: DifferingKeys<Outcome> },
): Promise<Tried<Outcome>> {
  let least = first;
  for (const reduce of REDUCTIONS) {
    const plan = reduce(least.plan, keysOf(least.outcome));
    if (sizeOf(plan) === sizeOf(least.plan)) continue;
    for (let left = TRIES; left > 0; left--) {
      const outcome = await run(plan);
      if (keysOf(outcome).length === 0) continue;
      least = { plan, outcome };
      break;
    }
  }
  return least;
}

/** Operations and faults of a plan. */
export function sizeOf({ nodes, prelude, faults }: Plan): number {
  const transactions = [...nodes.flatMap(({ clients }) => clients.flat()), ...(prelude ? [prelude] : [])];
  return transactions.reduce((sum, { operations }) => sum + operations.length, 0) + faults.length;
}

/** Only the operations on these keys. */
export function onKeys(plan: Plan, keys: readonly string[]): Plan {
  const wanted = new Set(keys);
  const tables = new Set(keys.map((key) => splitRowKey(key).table));
  const touches = (operation: Operation): boolean => {
    if (operation.kind === "truncate") return tables.has(operation.table);
    const touched = operation.kind === "change_key" ? [operation.key, operation.to] : [operation.key];
    return touched.some((key) => wanted.has(rowKey(operation.table, keyText(key))));
  };
  const reduced = (transaction: PlannedTransaction): PlannedTransaction => ({
    ...transaction,
    operations: transaction.operations.filter(touches),
  });
  return {
    ...onClients(
      plan,
      (transactions) => transactions.map(reduced).filter((one) => one.operations.length > 0),
    ),
    prelude: plan.prelude && reduced(plan.prelude),
  };
}

/** Nothing goes wrong, but links keep their delays. */
export function withoutFaults(plan: Plan): Plan {
  return { ...plan, faults: plan.faults.filter(({ forMs }) => forMs === Infinity) };
}

/** The first half of what each client does. */
export function halved(plan: Plan): Plan {
  return onClients(plan, (transactions) => transactions.slice(0, Math.ceil(transactions.length / 2)));
}

/** The first client of each node. */
export function oneClientEach(plan: Plan): Plan {
  return { ...plan, nodes: plan.nodes.map((node) => ({ ...node, clients: node.clients.slice(0, 1) })) };
}

function onClients(
  plan: Plan,
  change: (transactions: readonly PlannedTransaction[]) => readonly PlannedTransaction[],
): Plan {
  return { ...plan, nodes: plan.nodes.map((node) => ({ ...node, clients: node.clients.map(change) })) };
}
