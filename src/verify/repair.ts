/**
 * Makes rows of a table here what they are at another node: of the keys that a comparison has found to differ, each is
 * read there whole and written here, unless it has changed on either node since it was looked at.
 */
import type { Version } from "../pg/whole_rows.ts";
import type { DifferingRow } from "./compare.ts";
import type { Key, Side } from "./side.ts";
import { namedKey, type Refusal, type Repairs, type TableRepair } from "./verify.ts";

/** A row as it is at the other node. */
interface RowThere {
  readonly key: Key;
  /** Of the row here as it was looked at; null for none. */
  readonly stamp: number | null;
  /** Null if there is none at the other node. */
  readonly values: readonly (string | null)[] | null;
  readonly version: Version | null;
}

/** Writes rows of the table here. With `alone` what is refused is tried by itself, so that it is said what by. */
export type WriteRows = (
  rows: readonly RowThere[],
  options?: { readonly alone?: boolean },
) => Promise<("written" | "changed" | { readonly refused: string })[]>;

interface RowRepairOptions {
  readonly there: Side;
  /** Names of the key's columns. */
  readonly columns: readonly string[];
  readonly write: WriteRows;
  readonly signal: AbortSignal;
}

/** Rows that are read at the other node at a time. */
const BATCH_ROWS = 500;
/** Rows that are refused and tried again, as others may give free what they need; and those that are reported. */
const MAX_REFUSED = 10_000;
/** How often at most they are tried again. */
const MAX_ROUNDS = 100;

/** See the module's head. */
export class RowRepair implements TableRepair {
  readonly #options: RowRepairOptions;
  readonly #count = { overwritten: 0, inserted: 0, deleted: 0, changed_meanwhile: 0, refused: 0 };
  readonly #refusals: Refusal[] = [];
  #again: DifferingRow[] = [];

  constructor(options: RowRepairOptions) {
    this.#options = options;
  }

  async take(rows: readonly DifferingRow[]): Promise<void> {
    // What goes gives values of unique columns free.
    const sorted = [
      ...rows.filter(({ there }) => there === null),
      ...rows.filter(({ there }) => there !== null),
    ];
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
    return { ...this.#count, refusals: this.#refusals };
  }

  async #repair(
    rows: readonly DifferingRow[],
    refuse: (row: DifferingRow, reason: string) => void,
    options?: { readonly alone: boolean },
  ): Promise<void> {
    for (let left = rows; left.length > 0;) {
      this.#options.signal.throwIfAborted();
      const batch = left.slice(0, BATCH_ROWS);
      // Of long rows fewer come.
      const found = await this.#options.there.rows(batch.map(({ key }) => key));
      const wanted: { readonly row: DifferingRow; readonly there: RowThere }[] = [];
      found.forEach((whole, i) => {
        const row = batch[i];
        const { key, here, there } = row;
        if (whole.kind === "long") return refuse(row, "too long to be fetched");
        if ((whole.kind === "row" ? whole.stamp : null) !== (there?.stamp ?? null)) {
          this.#count.changed_meanwhile++;
          return;
        }
        const values = whole.kind === "row" ? whole.values : null;
        wanted.push({ row, there: { key, stamp: here?.stamp ?? null, values, version: whole.version } });
      });
      const outcomes = await this.#options.write(wanted.map(({ there }) => there), options);
      outcomes.forEach((outcome, i) => {
        const { row } = wanted[i];
        if (outcome === "written") this.#written(row);
        else if (outcome === "changed") this.#count.changed_meanwhile++;
        else refuse(row, outcome.refused);
      });
      left = left.slice(found.length);
    }
  }

  #written({ here, there }: DifferingRow): void {
    this.#count[there === null ? "deleted" : here === null ? "inserted" : "overwritten"]++;
  }

  #refuse({ key }: DifferingRow, reason: string): void {
    this.#count.refused++;
    if (this.#refusals.length >= MAX_REFUSED) return;
    this.#refusals.push({ key: namedKey(key, this.#options.columns), reason });
  }
}
