/**
 * The modes of a copy that leave the rows of this node where they are: `keep` compares them with those of another node,
 * and `merge` makes both alike by the newer ones. Nothing is shut meanwhile, and replication goes on.
 */
import type { CopyInput, CopyReport, RepairedTable } from "../api/job_schemas.ts";
import { backoffMs, delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { JobRun } from "./jobs.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import type { Repair } from "./repair.ts";
import type { RowWriters } from "./row_writers.ts";
import { worst } from "./verification.ts";

/** What merging needs of the rest of the node. */
export interface MergingOptions {
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly repair: Pick<Repair, "reconcile">;
  readonly writers: Pick<RowWriters, "requireVersions">;
}

/** A copy in one of these modes. */
export type MergeInput = CopyInput & { readonly mode: "keep" | "merge" };

/** Whether a copy leaves the rows here where they are. */
export function isMerge(input: CopyInput): input is MergeInput {
  return input.mode === "keep" || input.mode === "merge";
}

type PeerMerge = CopyReport["peers"][number];

/** Differing rows of a table that are listed. */
const LISTED_ROWS = 1_000;
/** How long rows that differ are looked at again, seconds; a link that begins has that long to come up to date. */
const SETTLE_SECONDS = 60;
/** How often at most what could not be told, or has changed meanwhile, is looked at once more. */
const MAX_ROUNDS = 20;
/** How many tables an error names. */
const MAX_NAMED_TABLES = 10;

/** See the module's head. */
export class Merging {
  readonly #options: MergingOptions;
  readonly #logger = log("copy");

  constructor(options: MergingOptions) {
    this.#options = options;
  }

  /** Throws what is wrong with the input. */
  check({ mode, max_rate }: MergeInput): void {
    if (max_rate !== undefined) {
      throw new MmliteError(
        "invalid_input",
        `Cannot ${mode} rows at a rate: only a copy of all rows has one`,
        {
          hint: "Leave the rate out",
        },
      );
    }
    if (mode === "merge") this.#options.writers.requireVersions();
  }

  /**
   * Throws `conflict` where something differs in the end; what was found is on record all the same. Rows that are merged
   * go to one node at a time: so it is done with the others too, or they would lack what the first one got.
   */
  async run(input: MergeInput, run: JobRun): Promise<CopyReport> {
    const { self, peers } = this.#options;
    const others = input.mode === "keep"
      ? []
      : peers.list().filter(({ name, removing }) => !removing && name !== input.from);
    const merges: PeerMerge[] = [];
    const report = (): CopyReport => {
      const rows = merges[0]?.tables.map(({ table, rows }) => ({ table, rows: rows?.here ?? 0 })) ?? [];
      const sum = rows.reduce((sum, { rows }) => sum + rows, 0);
      return {
        node: self,
        from: input.from,
        mode: input.mode,
        created: [],
        left_out: [],
        rows: sum,
        tables: rows,
        peers: merges,
      };
    };
    for (const peer of [peers.get(input.from), ...others]) {
      merges.push(await this.#with(peer, input, run));
      run.found(report());
    }
    // What a later one gave has not come to those before it.
    const last = merges.findLastIndex(({ taken, removed }, place) => place > 0 && taken + removed > 0);
    for (let place = 0; place < last; place++) {
      const before = new Map(merges[place].tables.map((table) => [table.table, table]));
      const { peer, tables } = await this.#with(peers.get(merges[place].peer), input, run);
      merges[place] = toMerge(peer, tables.map((table) => add(before.get(table.table), table)));
      run.found(report());
    }
    const left = merges.filter(({ outcome }) => outcome !== "equal");
    if (left.length === 0) return report();
    if (left.every(({ outcome }) => outcome === "undecided")) throw this.#untold(input, left);
    throw this.#differing(input, left);
  }

  async #with(peer: Peer, { mode }: MergeInput, run: JobRun): Promise<PeerMerge> {
    const found = new Map<string, RepairedTable>();
    let tables: string[] | undefined;
    for (let rounds = 1;; rounds++) {
      for (const table of await this.#reconcile(peer, { mode, tables }, run)) {
        found.set(table.table, add(found.get(table.table), table));
      }
      tables = [...found.values()].filter(({ outcome }) => outcome === "undecided").map(({ table }) => table);
      if (tables.length > 0 && rounds < MAX_ROUNDS) continue;
      return toMerge(peer.name, [...found.values()]);
    }
  }

  /** A peer may be away, or not know of this node yet. */
  async #reconcile(
    peer: Peer,
    { mode, tables }: { readonly mode: MergeInput["mode"]; readonly tables: string[] | undefined },
    run: JobRun,
  ): Promise<readonly RepairedTable[]> {
    for (let failures = 0;; failures++) {
      try {
        const found = await this.#options.repair.reconcile(peer, {
          ...{ tables, dry_run: mode === "keep", right: mode === "keep" ? "there" : "newest" },
          ...{ share: 1, limit: LISTED_ROWS, settle_seconds: SETTLE_SECONDS },
        }, run);
        return found.tables;
      } catch (thrown) {
        const error = toMmliteError(thrown);
        if (run.signal.aborted || error.disposition !== "retry") throw error;
        this.#logger.warn("{error}; it is tried again", { error: error.message });
        await delay(backoffMs(failures), run.signal);
        run.signal.throwIfAborted();
      }
    }
  }

  #untold({ mode }: MergeInput, left: readonly PeerMerge[]): MmliteError {
    const peers = left.map(({ peer }) => `"${peer}"`).join(", ");
    return new MmliteError("transient", `Cannot tell whether all rows are equal to those of ${peers}`, {
      hint: `Let all links stream (\`mmlite peers list\` on each node), then ${mode} again`,
    });
  }

  #differing({ mode, from }: MergeInput, left: readonly PeerMerge[]): MmliteError {
    const { self } = this.#options;
    const names = left.flatMap(({ peer, tables }) =>
      tables.filter(({ outcome }) => outcome !== "equal").map(({ table }) =>
        left.length === 1 ? table : `${table} (with "${peer}")`
      )
    );
    const more = names.length > MAX_NAMED_TABLES ? ` and ${names.length - MAX_NAMED_TABLES} more` : "";
    const named = names.slice(0, MAX_NAMED_TABLES).join(", ") + more;
    if (mode === "keep") {
      return new MmliteError(
        "conflict",
        `Cannot keep the rows of node "${self}": they differ from those of "${from}" in ${named}`,
        {
          hint:
            "The result lists them. To have the newer one of each on both nodes, use the mode merge; to give up the rows " +
            "here, replace",
        },
      );
    }
    return new MmliteError("conflict", `Cannot merge all rows: they differ still in ${named}`, {
      hint: "The result says of each row or table why; mend that and merge again",
    });
  }
}

/** Of a table that was looked at once more: what was done is added up, what is left is as it was found last. */
function add(before: RepairedTable | undefined, now: RepairedTable): RepairedTable {
  if (before === undefined) return now;
  return {
    ...now,
    overwritten: before.overwritten + now.overwritten,
    inserted: before.inserted + now.inserted,
    deleted: before.deleted + now.deleted,
    given: {
      overwritten: before.given.overwritten + now.given.overwritten,
      inserted: before.given.inserted + now.given.inserted,
      deleted: before.given.deleted + now.given.deleted,
    },
  };
}

function toMerge(peer: string, tables: RepairedTable[]): PeerMerge {
  const sum = (of: (table: RepairedTable) => number) => tables.reduce((rows, table) => rows + of(table), 0);
  return {
    peer,
    outcome: worst(tables.map(({ outcome }) => outcome)) as RepairedTable["outcome"],
    taken: sum(({ overwritten, inserted }) => overwritten + inserted),
    given: sum(({ given }) => given.overwritten + given.inserted),
    removed: sum(({ deleted }) => deleted),
    removed_there: sum(({ given }) => given.deleted),
    tables,
  };
}
