/**
 * Rows that are removed here as older than this node's own deletes, told to a node that may have copied them.
 */
import { MmliteError } from "../errors.ts";
import type { CopiedNote } from "../pg/copy_notes.ts";
import type { Row } from "../pg/query.ts";
import { formatTableName } from "../table_name.ts";
import { MAX_TOLD } from "./own_statements.ts";
import { foundBy } from "./second_look_statements.ts";
import type { TargetRelation } from "./target_relation.ts";

/** See the module's head. Holds no more rows than a statement tells. */
export class Removals {
  readonly #notes: CopiedNote[] = [];
  readonly #self: string;
  readonly #since: string[] = [];
  /** Why they cannot be told. */
  #untold: string | undefined;
  /** Nothing more is added. */
  readonly stop: () => void;

  /** `self` is this node's name. */
  constructor(self: string, stop: (removals: Removals) => void) {
    this.#self = self;
    this.stop = () => stop(this);
  }

  /** Takes the lines of a statement, see `own_statements.ts`. */
  add({ map }: TargetRelation, rows: readonly Row[]): void {
    if (rows.length === 0) return;
    const { schema, name, key } = map;
    const table = formatTableName({ schema, name });
    const { removed, oldest } = rows[0];
    if (key === null) this.#untold = `rows of table ${table}, which has no key, were removed meanwhile`;
    else if (Number(removed) > rows.length || this.#notes.length + rows.length > MAX_TOLD) {
      this.#untold = `too many rows of table ${table} were removed meanwhile to tell of each`;
    }
    if (key === null || this.#untold !== undefined) return;
    if (oldest !== null) this.#since.push(oldest);
    const found = foundBy(map);
    for (const row of rows) {
      this.#notes.push({
        kind: "second_look",
        row: {
          ...{ table_schema: schema, table_name: name, found_in: found.in, found_by: found.by },
          ...{
            key_columns: JSON.stringify(key.columns.map(({ name }) => name)),
            key: row.key,
            hash: row.hash,
          },
          ...{ origin: this.#self, at: row.at, change: "delete", newer: "applied", older: "skipped" },
        },
      });
    }
  }

  /**
   * The notes by which another node removes the same rows, and times, as PostgreSQL reads them, among which is that at
   * which the first of these rows was committed: from then on it needs exact versions. Throws `transient` where the
   * rows cannot be told one by one.
   */
  removed(): { readonly notes: readonly CopiedNote[]; readonly since: readonly string[] } {
    if (this.#untold === undefined) return { notes: this.#notes, since: this.#since };
    throw new MmliteError("transient", `Cannot give the rows: ${this.#untold}`, {
      hint: "Nothing to do: the copy begins anew by itself",
    });
  }
}
