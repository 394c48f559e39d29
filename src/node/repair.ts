/**
 * Making rows of this node what they are at a peer: a comparison whose differences are written here at once, through a
 * session whose replication origin keeps them from being sent on (`apply/exact_rows.ts`). Links are left alone.
 */
import type { Job, RepairedTable, RepairInput, ResyncInput } from "../api/job_schemas.ts";
import { ExactRows } from "../apply/exact_rows.ts";
import { MmliteError } from "../errors.ts";
import { ensureNamedOrigin } from "../pg/progress.ts";
import type { TableName } from "../table_name.ts";
import type { LocalSide } from "../verify/local_side.ts";
import type { RemoteSide } from "../verify/remote_side.ts";
import { RowRepair } from "../verify/repair.ts";
import { type Repairs, type TableRepair, type VerifiedTable, verifyTables } from "../verify/verify.ts";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";
import type { JobContext, JobKind } from "./jobs.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import { requirePattern, type Verification, worst } from "./verification.ts";

interface RepairOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly verification: Verification;
  readonly applied: Applied;
}

const NO_REPAIRS: Repairs = {
  ...{ overwritten: 0, inserted: 0, deleted: 0, changed_meanwhile: 0, refused: 0, refusals: [] },
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

  check({ tables = [], source }: RepairInput): void {
    for (const pattern of tables) requirePattern(pattern);
    this.#source(source);
  }

  async run(input: RepairInput, { progress, signal }: JobContext): Promise<Job["result"]> {
    const { source, dry_run } = input;
    return await this.#options.verification.withSides(
      this.#source(source),
      { progress, signal },
      async (sides) => {
        const tables = await this.#withWriter(input, signal, (writer) =>
          verifyTables({
            ...{ ...sides, patterns: input.tables, share: input.share, limit: input.limit, signal },
            settleMs: input.settle_seconds * 1000,
            progress: { expect: (rows) => progress.expect(rows), read: (rows) => progress.read(rows) },
            repair: writer && ((table) => beginTable(table, { ...sides, writer, signal })),
          }));
        const outcome = worst(tables.map(({ outcome }) => outcome));
        await this.#options.verification.noteEqual(this.#source(source), { patterns: input.tables, outcome });
        return {
          ...{ node: this.#options.self, source, dry_run },
          outcome,
          bytes: sides.there.bytes,
          tables: tables.map((table) => toReport(table)),
        };
      },
    );
  }

  /** Nothing is opened for a dry run. */
  async #withWriter<Result>(
    { dry_run, source }: RepairInput,
    signal: AbortSignal,
    work: (writer: ExactRows | undefined) => Promise<Result>,
  ): Promise<Result> {
    if (dry_run) return await work(undefined);
    const { database, self, applied } = this.#options;
    // One of its own: that of a peer belongs to the session that applies what it sends.
    const originName = `mmlite:${self}:repair`;
    await ensureNamedOrigin(database.control.query("make the origin of repairs"), originName);
    const writer = await ExactRows.open({ target: database.target, self, originName, source, signal });
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    applied.add({ failed: ended, isBusy: true });
    try {
      return await work(writer);
    } finally {
      await writer.close();
      end();
    }
  }

  /** Throws `invalid_input`: exit code 1 is for rows that differ. */
  #source(name: string): Peer {
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
  return { ...rest, type: "repair", source: from, tables: [table] };
}

async function beginTable(
  table: TableName,
  { here, there, writer, signal }: {
    readonly here: LocalSide;
    readonly there: RemoteSide;
    readonly writer: ExactRows;
    readonly signal: AbortSignal;
  },
): Promise<TableRepair> {
  const scanned = here.tableOf(table)!;
  await writer.begin(scanned);
  return new RowRepair({
    there,
    columns: scanned.key.map(({ name }) => name),
    write: (rows, options) => writer.write(rows, options),
    signal,
  });
}

function toReport(
  { table, outcome, problem, rows, differences, undecided, complete, diverged, repairs }: VerifiedTable,
): RepairedTable {
  const isKeyed = differences.every((row) => "key" in row);
  const { refusals, ...counts } = repairs ?? NO_REPAIRS;
  return {
    ...{ table, outcome, rows, complete, diverged, ...counts },
    problem: [...(problem === "" ? [] : [problem]), ...(isKeyed ? [] : [NO_KEY])].join("; "),
    refusals: [...refusals],
    planned: differences.flatMap((row) =>
      "key" in row ? [{ key: row.key, action: ACTIONS[row.difference] }] : []
    ),
    undecided: [...undecided],
  };
}
