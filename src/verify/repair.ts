/**
 * Makes rows of a table alike on two nodes: of the keys that a comparison has found to differ, each is read whole and
 * written where it is not right, unless it has changed on either node since it was looked at. Right is what the other
 * node has, or of each row the newer one, wherever that is.
 */
import { isNewer, type Version, type WholeRow } from "../pg/whole_rows.ts";
import type { DifferingRow } from "./compare.ts";
import type { RowWriter, Side, WantedRow } from "./side.ts";
import { namedKey, type PlannedRow, type Refusal, type Repairs, type TableRepair } from "./verify.ts";

/** One of the two nodes. */
export type RepairSide = Pick<Side, "node" | "rows"> & Pick<RowWriter, "write">;

type Place = "here" | "there";

interface RowRepairOptions {
  readonly here: RepairSide;
  readonly there: RepairSide;
  /** Whose rows are right: the other node's, or of each the newer one; of two that are as old the other node's. */
  readonly right: "there" | "newest";
  /** How much is planned at most that is reported; it is written, where left out. */
  readonly dryRun?: { readonly limit: number };
  /** Names of the key's columns. */
  readonly columns: readonly string[];
  readonly signal: AbortSignal;
}

/** A row that is written. */
interface Plan {
  readonly row: DifferingRow;
  readonly to: Place;
  readonly wanted: WantedRow;
}

type Refuse = (row: DifferingRow, reason: string) => void;

/** Rows that are read at a time. */
const BATCH_ROWS = 500;
/** Rows that are refused and tried again, as others may give free what they need; and those that are reported. */
const MAX_REFUSED = 10_000;
/** How often at most they are tried again. */
const MAX_ROUNDS = 100;

/** See the module's head. */
export class RowRepair implements TableRepair {
  readonly #options: RowRepairOptions;
  readonly #written = {
    here: { overwritten: 0, inserted: 0, deleted: 0 },
    there: { overwritten: 0, inserted: 0, deleted: 0 },
  };
  readonly #left = { changed_meanwhile: 0, refused: 0 };
  readonly #refusals: Refusal[] = [];
  readonly #planned: PlannedRow[] = [];
  #plans = 0;
  #again: DifferingRow[] = [];

  constructor(options: RowRepairOptions) {
    this.#options = options;
  }

  async take(rows: readonly DifferingRow[]): Promise<void> {
    const isNewest = this.#options.right === "newest";
    // What goes gives values of unique columns free.
    const mayGo = ({ here, there }: DifferingRow) => there === null || isNewest && here === null;
    const sorted = [...rows.filter(mayGo), ...rows.filter((row) => !mayGo(row))];
    await this.#repair(sorted, (row, reason) => {
      if (this.#again.length < MAX_REFUSED) this.#again.push(row);
      else this.#refuse(row, reason);
    });
  }

  async end(): Promise<Repairs> {
    for (let round = 0, before = Infinity; round < MAX_ROUNDS && this.#again.length < before; round++) {
      const rows = this.#again;
      this.#again = [];
      before = rows.length;
      await this.#repair(rows, (row) => void this.#again.push(row));
    }
    await this.#repair(this.#again, (row, reason) => this.#refuse(row, reason), { alone: true });
    return {
      ...this.#written.here,
      given: this.#written.there,
      ...this.#left,
      refusals: this.#refusals,
      planned: this.#planned,
      plans: this.#plans,
    };
  }

  async #repair(
    rows: readonly DifferingRow[],
    refuse: Refuse,
    options?: { readonly alone: boolean },
  ): Promise<void> {
    for (let left = rows; left.length > 0;) {
      this.#options.signal.throwIfAborted();
      const batch = left.slice(0, BATCH_ROWS);
      const found = await this.#read(batch);
      const plans: Plan[] = [];
      found.forEach((whole, i) => {
        const plan = this.#plan(batch[i], whole);
        if (plan === "long") refuse(batch[i], "too long to be fetched");
        else if (plan === "changed") this.#left.changed_meanwhile++;
        else plans.push(plan);
      });
      for (const to of ["here", "there"] as const) {
        await this.#write(plans.filter((plan) => plan.to === to), { to, refuse, options });
      }
      left = left.slice(found.length);
    }
  }

  /** The first rows: of long ones fewer come. The one here is not needed where it is overwritten in any case. */
  async #read(batch: readonly DifferingRow[]): Promise<{ here: WholeRow | null; there: WholeRow }[]> {
    const { here, there, right } = this.#options;
    const keys = batch.map(({ key }) => key);
    const [mine, theirs] = await Promise.all([right === "newest" ? here.rows(keys) : null, there.rows(keys)]);
    return theirs.slice(0, mine?.length).map((there, i) => ({ here: mine?.[i] ?? null, there }));
  }

  #plan(row: DifferingRow, whole: { here: WholeRow | null; there: WholeRow }): Plan | "long" | "changed" {
    const { here, there } = whole;
    if (here?.kind === "long" || there.kind === "long") return "long";
    if (here !== null && stampOf(here) !== (row.here?.stamp ?? null)) return "changed";
    if (stampOf(there) !== (row.there?.stamp ?? null)) return "changed";
    const from = here === null || isRight(there, here) ? "there" : "here";
    const to = from === "there" ? "here" : "there";
    const right = from === "there" ? there : here!;
    return {
      ...{ row, to },
      wanted: {
        key: row.key,
        stamp: row[to]?.stamp ?? null,
        values: right.kind === "row" ? right.values : null,
        version: right.version,
      },
    };
  }

  async #write(
    plans: readonly Plan[],
    { to, refuse, options }: {
      readonly to: Place;
      readonly refuse: Refuse;
      readonly options?: { readonly alone: boolean };
    },
  ): Promise<void> {
    const { [to]: side, dryRun } = this.#options;
    if (dryRun !== undefined) return this.#note(plans, { node: side.node, limit: dryRun.limit });
    if (plans.length === 0) return;
    const outcomes = await side.write(plans.map(({ wanted }) => wanted), options);
    outcomes.forEach((outcome, i) => {
      const { row } = plans[i];
      if (outcome === "written") this.#written[to][COUNTS[actionOf(plans[i])]]++;
      else if (outcome === "changed") this.#left.changed_meanwhile++;
      else refuse(row, to === "here" ? outcome.refused : `${outcome.refused} (on "${side.node}")`);
    });
  }

  #note(plans: readonly Plan[], { node, limit }: { readonly node: string; readonly limit: number }): void {
    this.#plans += plans.length;
    for (const plan of plans) {
      if (this.#planned.length >= limit) return;
      const key = namedKey(plan.row.key, this.#options.columns);
      this.#planned.push({ key, action: actionOf(plan), node });
    }
  }

  #refuse({ key }: DifferingRow, reason: string): void {
    this.#left.refused++;
    if (this.#refusals.length >= MAX_REFUSED) return;
    this.#refusals.push({ key: namedKey(key, this.#options.columns), reason });
  }
}

const COUNTS = { overwrite: "overwritten", insert: "inserted", delete: "deleted" } as const;

function actionOf({ wanted: { stamp, values } }: Plan): keyof typeof COUNTS {
  return values === null ? "delete" : stamp === null ? "insert" : "overwrite";
}

/** What is there of a key: a row, or that it was deleted. */
type Found = Exclude<WholeRow, { readonly kind: "long" }>;

function stampOf(row: Found): number | null {
  return row.kind === "row" ? row.stamp : null;
}

/** Whether what the other node has counts: the newer one, as last-update-wins has it. */
function isRight(there: Found, here: Found): boolean {
  if (there.kind === "row") {
    return here.kind === "row" ? !isNewer(here.version, there.version) : !isGone(here, there);
  }
  return isGone(there, here);
}

/** Whether a delete that is known of is no older than a row: a row that nobody is known to have deleted stays. */
function isGone(none: Found, row: { readonly version: Version | null }): boolean {
  return none.version !== null && !isNewer(row.version, none.version);
}
