/**
 * Making rows of this node and of a peer alike: a comparison whose differences are written at once, through a session
 * whose replication origin keeps them from being sent on (`apply/exact_rows.ts`). Links are left alone.
 */
import type { Job, RepairedTable, RepairInput, ResyncInput } from "../api/job_schemas.ts";
import { MmliteError } from "../errors.ts";
import type { TableName } from "../table_name.ts";
import type { LocalSide } from "../verify/local_side.ts";
import type { RemoteSide } from "../verify/remote_side.ts";
import { type RepairSide, RowRepair } from "../verify/repair.ts";
import type { RowWriter } from "../verify/side.ts";
import { type Repairs, type VerifiedTable, verifyTables } from "../verify/verify.ts";
import type { JobContext, JobKind } from "./jobs.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import type { RowWriters } from "./row_writers.ts";
import { requirePattern, type Verification, worst } from "./verification.ts";

interface RepairOptions {
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly verification: Verification;
  readonly writers: RowWriters;
}

/** A comparison whose differences are repaired. */
export type Reconciliation = Omit<RepairInput, "type" | "source" | "peer" | "newest">;

const NO_COUNTS = { overwritten: 0, inserted: 0, deleted: 0 };
const NO_REPAIRS: Repairs = {
  ...{
    ...NO_COUNTS,
    given: NO_COUNTS,
    changed_meanwhile: 0,
    refused: 0,
    refusals: [],
    planned: [],
    plans: 0,
  },
};
const ACTIONS = { only_here: "delete", only_there: "insert", other_values: "overwrite" } as const;
const NO_KEY = "cannot be repaired: it has no key that rows can be looked up by";

/** See the module's head. */
export class Repair implements JobKind<RepairInput> {
  readonly interruptedHint =
    "Begin it again: what was repaired stays, nothing has to be undone, and what differs still is found";
  readonly #options: RepairOptions;

  constructor(options: RepairOptions) {
    this.#options = options;
  }

  check(input: RepairInput): void {
    for (const pattern of input.tables ?? []) requirePattern(pattern);
    if (input.newest) this.#options.writers.requireVersions();
    this.#peerOf(input);
  }

  async run(input: RepairInput, context: JobContext): Promise<Job["result"]> {
    const { newest, dry_run } = input;
    const peer = this.#peerOf(input);
    const { tables, bytes } = await this.reconcile(
      peer,
      { ...input, right: newest ? "newest" : "there" },
      context,
    );
    const outcome = worst(tables.map(({ outcome }) => outcome));
    return { ...{ node: this.#options.self, source: peer.name, newest, dry_run, bytes, tables }, outcome };
  }

  /** Makes the rows that differ from a peer's what is right. */
  async reconcile(
    peer: Peer,
    input: Reconciliation & { readonly right: "there" | "newest" },
    { progress, signal }: JobContext,
  ): Promise<{ readonly tables: RepairedTable[]; readonly bytes: number }> {
    const { self, writers, verification } = this.#options;
    return await verification.withSides(peer, { progress, signal }, async (sides) => {
      const tableOf = (table: TableName) => sides.here.tableOf(table);
      await using own = writers.writer(peer.name, { tableOf, newest: false, signal });
      const here = withWriter(sides.here, own);
      const there = withWriter(sides.there, sides.there.writer);
      // In the order of their names: two nodes that repair each other at once would each wait for the other.
      const written = [here, ...(input.right === "newest" ? [there] : [])].sort((a, b) =>
        a.node < b.node ? -1 : 1
      );
      const tables = await verifyTables({
        ...{ ...sides, patterns: input.tables, share: input.share, limit: input.limit, signal },
        settleMs: input.settle_seconds * 1000,
        progress: { expect: (rows) => progress.expect(rows), read: (rows) => progress.read(rows) },
        repair: input.dry_run && input.right === "there" ? undefined : async (table) => {
          if (!input.dry_run) { for (const { begin } of written) await begin(table); }
          return new RowRepair({
            ...{ here, there, right: input.right, signal },
            dryRun: input.dry_run ? { limit: input.limit } : undefined,
            columns: tableOf(table)!.key.map(({ name }) => name),
          });
        },
      });
      if (!input.dry_run) {
        await verification.noteEqual(peer, { ...sides, patterns: input.tables, tables });
      }
      return { tables: tables.map((table) => toReport(table, self)), bytes: sides.there.bytes };
    });
  }

  /** Throws `invalid_input`: exit code 1 is for rows that differ. */
  #peerOf({ newest, source, peer: named }: RepairInput): Peer {
    return this.#peer(newest ? named ?? this.#onlyPeer() : source!);
  }

  #onlyPeer(): string {
    const names = this.#options.peers.list().filter(({ removing }) => !removing).map(({ name }) => name);
    if (names.length === 1) return names[0];
    throw new MmliteError(
      "invalid_input",
      `Cannot repair by the newest rows: this node has ${names.length === 0 ? "no" : "several"} peers`,
      {
        hint: names.length === 0
          ? "Add one with `mmlite peers add`"
          : `Say with which: ${
            names.join(", ")
          }; with one after the other, then with all but the last once more`,
      },
    );
  }

  #peer(name: string): Peer {
    const { self, peers } = this.#options;
    if (name === self) {
      throw new MmliteError("invalid_input", `Cannot repair node "${self}" by its own rows`, {
        hint: `Only the node that is asked is changed: run it on the other node, with --source ${self}`,
      });
    }
    const peer = peers.find(name);
    if (peer !== undefined && !peer.removing) return peer;
    throw new MmliteError("invalid_input", `Cannot repair by rows of "${name}": there is no such peer`, {
      hint: "`mmlite peers list` shows them all",
    });
  }
}

/** One table, by the name that is looked for. */
export class Resync implements JobKind<ResyncInput> {
  readonly interruptedHint: string;
  readonly #repair: Repair;

  constructor(repair: Repair) {
    this.#repair = repair;
    this.interruptedHint = repair.interruptedHint;
  }

  check(input: ResyncInput): void {
    this.#repair.check(toRepair(input));
    if (!/[*?]/.test(input.table.replaceAll(/"(?:[^"]|"")*"/g, ""))) return;
    throw new MmliteError(
      "invalid_input",
      `Cannot resync ${input.table}: it stands for more than one table`,
      {
        hint: "Name one table, or repair several by `mmlite verify PATTERN --repair --source NAME`",
      },
    );
  }

  run(input: ResyncInput, context: JobContext): Promise<Job["result"]> {
    return this.#repair.run(toRepair(input), context);
  }
}

function toRepair({ table, from, ...rest }: ResyncInput): RepairInput {
  return { ...rest, type: "repair", source: from, newest: false, tables: [table] };
}

/** What a repair needs of a node. */
function withWriter(side: LocalSide | RemoteSide, writer: RowWriter): RepairSide & Pick<RowWriter, "begin"> {
  return {
    node: side.node,
    rows: (keys) => side.rows(keys),
    begin: (table) => writer.begin(table),
    write: (rows, options) => writer.write(rows, options),
  };
}

function toReport(
  { table, outcome, problem, rows, differences, undecided, complete, diverged, repairs }: VerifiedTable,
  self: string,
): RepairedTable {
  const isKeyed = differences.every((row) => "key" in row);
  const { refusals, planned, plans: _, ...counts } = repairs ?? NO_REPAIRS;
  return {
    ...{ table, outcome, rows, complete, diverged, ...counts },
    problem: [...(problem === "" ? [] : [problem]), ...(isKeyed ? [] : [NO_KEY])].join("; "),
    refusals: [...refusals],
    planned: [
      ...planned,
      ...differences.flatMap((row) =>
        "key" in row ? [{ key: row.key, action: ACTIONS[row.difference], node: self }] : []
      ),
    ],
    undecided: [...undecided],
  };
}
