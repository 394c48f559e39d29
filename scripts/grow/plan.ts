/**
 * What one round does: nodes, who joins by whose rows, what is open meanwhile and what is killed. Pure: everything
 * follows from the seed; only the time that things take does not.
 */
import { type RandomInteger, seededIntegers } from "../../tests/support/append_load.ts";
import { POSTGRES_MAJORS, type PostgresMajor } from "../../tests/support/postgres_packages.ts";
import { draw, pick } from "../converge/plan.ts";

/** A node. */
export interface PlannedNode {
  readonly name: string;
  readonly major: PostgresMajor;
  /** Whether transactions can be prepared there. */
  readonly prepares: boolean;
}

/** What goes wrong, as reports list it. */
export const FAULT_KINDS = ["kill_joiner", "kill_donor", "kill_third", "crash_joiner"] as const;

/** Something that goes wrong while rows are copied, and how long what ended stays away. */
export interface Fault {
  readonly kind: typeof FAULT_KINDS[number];
  /** Counted from the beginning, or from the first row that has come. */
  readonly from: "beginning" | "rows";
  readonly afterMs: number;
  readonly forMs: number;
}

/** A transaction that is open when a join begins, or when its copy is asked for: a slot waits for what is open. */
export interface OpenTransaction {
  readonly on: "donor" | "third";
  readonly when: "join" | "copy";
  readonly isPrepared: boolean;
  readonly commits: boolean;
  readonly forMs: number;
}

/** One node more; nodes are named by their place. */
export interface PlannedJoin {
  readonly joiner: number;
  readonly donor: number;
  /** Another one that is there already. */
  readonly third: number;
  readonly open: readonly OpenTransaction[];
  readonly faults: readonly Fault[];
}

/** All of a round. */
export interface GrowPlan {
  readonly seed: number;
  readonly nodes: readonly PlannedNode[];
  /** Whether nodes join by a token and speak TLS; then the first one invites. */
  readonly byToken: boolean;
  readonly joins: readonly PlannedJoin[];
  /** Who leaves, in order. */
  readonly leaving: readonly number[];
}

/** How many nodes there are in the beginning and the end, and at most. */
const FEW = 2;
const MANY = 5;
/** One round in this many joins by token. */
const TOKEN_EVERY = 3;
/** Longest time that a transaction is open, milliseconds. */
const OPEN_MS = 4_000;

/** The plan of a round. */
export function planRound(seed: number): GrowPlan {
  const random = seededIntegers(Math.imul(seed, 0x9e3779b1));
  const byToken = seed % TOKEN_EVERY === 0;
  const nodes = draw(random, POSTGRES_MAJORS, MANY).map((major, place) => ({
    name: `${String.fromCharCode(97 + place)}${seed}`,
    major,
    prepares: random(0, 1) === 1,
  }));
  const joins = nodes.map((_, place) => place).slice(FEW).map((joiner) => {
    const [donor, third] = draw(random, Array.from({ length: joiner }, (_, place) => place), 2);
    const inviting = { donor: 0, third: third === 0 ? donor : third };
    return {
      ...{ joiner, donor, third },
      ...(byToken ? inviting : {}),
      open: planOpen(random),
      faults: Array.from({ length: random(0, 3) }, () => planFault(random)),
    };
  });
  const removable = nodes.map((_, place) => place).filter((place) => !byToken || place > 0);
  return { seed, nodes, byToken, joins, leaving: draw(random, removable, MANY - FEW) };
}

function planOpen(random: RandomInteger): OpenTransaction[] {
  return (["donor", "third"] as const).flatMap((on) =>
    [false, true].map((isPrepared) => ({
      ...{ on, isPrepared },
      when: pick(random, ["join", "copy"] as const),
      commits: random(0, 2) > 0,
      forMs: random(300, OPEN_MS),
    }))
  );
}

function planFault(random: RandomInteger): Fault {
  const from = pick(random, ["beginning", "rows", "rows"] as const);
  return {
    kind: pick(random, FAULT_KINDS),
    ...{ from, afterMs: from === "rows" ? random(0, 600) : random(0, OPEN_MS) },
    forMs: random(0, 1_500),
  };
}
