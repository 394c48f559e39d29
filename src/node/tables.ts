/**
 * The replicated tables as the control API shows them: what is published, how conflicts are settled, and whether
 * nodes may hold different rows.
 */
import type { TablePolicyInput } from "../api/conflict_schemas.ts";
import type { TablePolicyOptions } from "../api/control.ts";
import type { TableStatus } from "../api/schemas.ts";
import { divergingPolicy, type TablePolicy } from "../conflict_policy.ts";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { clearDiverged, type DivergedRow, readDiverged } from "../pg/diverged.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import type { ConflictPolicies, PolicySetting } from "./conflict_policies.ts";
import type { Database } from "./database.ts";
import type { PublicationKeeper, PublishedTable } from "./publication_keeper.ts";

/** Tables that one message names; more are counted. */
const MAX_NAMED = 5;

interface TablesOptions {
  readonly database: Pick<Database, "control">;
  readonly publications: PublicationKeeper;
  readonly policies: ConflictPolicies;
}

/** See the module's head. */
export class Tables {
  readonly #options: TablesOptions;
  readonly #logger = log("tables");
  /** As they were read last, by {@link tableKey}: what the database says of them cannot always be had. */
  #diverged: ReadonlyMap<string, DivergedRow> = new Map();

  constructor(options: TablesOptions) {
    this.#options = options;
  }

  /** Looks again which tables are marked. */
  async look(): Promise<void> {
    const marked = await readDiverged(this.#query("read which tables have diverged"));
    this.#diverged = new Map(marked.map((row) => [tableKey(row), row]));
  }

  /** Every published table, by schema and name. */
  list(): TableStatus[] {
    return this.#options.publications.list().map((table) => this.#show(table));
  }

  /** Throws `not_found`. */
  get(table: TableName): TableStatus {
    return this.#show(this.#options.publications.get(table));
  }

  counts(): { replicated: number; insert_only: number; diverged: number } {
    return { ...this.#options.publications.counts(), diverged: this.#diverged.size };
  }

  /** What an operator should know. */
  problems(): MmliteError[] {
    const { publications } = this.#options;
    const marked = [...this.#diverged.values()];
    return [...publications.problems(), ...(marked.length === 0 ? [] : [divergedTables(marked)])];
  }

  /** See `NodeControl.setTablePolicy`. */
  async setPolicy(
    table: TableName,
    input: TablePolicyInput | null,
    { dryRun, precondition }: TablePolicyOptions,
  ): Promise<TableStatus> {
    const { policies, publications } = this.#options;
    const policy = input === null ? null : requireAllowed(table, input);
    const require = () => void precondition?.(this.get(table));
    if (!dryRun) await policies.set(table, policy, require);
    else require();
    return this.#show(publications.get(table), policies.imagine(table, policy));
  }

  /** See `NodeControl.clearTable`. */
  async clear(table: TableName, { dryRun }: { dryRun: boolean }): Promise<TableStatus> {
    const shown = this.get(table);
    if (dryRun) return { ...shown, diverged: null };
    const name = formatTableName(table);
    const cleared = await clearDiverged(this.#query(`clear the mark of table ${name}`), table);
    if (cleared) this.#logger.info("Table {table} counts as equal on all nodes again", { table: name });
    await this.look();
    return this.get(table);
  }

  #show(table: PublishedTable, setting?: PolicySetting): TableStatus {
    const { policy, types, from } = setting ?? this.#options.policies.settingOf(table);
    const diverged = this.#diverged.get(tableKey(table));
    return {
      ...table,
      policy,
      types: { ...types } as Record<string, string>,
      policy_from: from,
      diverged: diverged === undefined ? null : { since: diverged.since, reason: diverged.reason },
    };
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }
}

function requireAllowed(
  table: TableName,
  { policy, types = {}, allow_divergence }: TablePolicyInput,
): TablePolicy {
  const diverging = divergingPolicy({ policy, types });
  if (diverging === null || allow_divergence === true) return { policy, types };
  throw new MmliteError(
    "config",
    `Cannot settle conflicts of table ${
      formatTableName(table)
    } by ${diverging}: nodes could come to hold different rows`,
    {
      hint: "Say that they may with allow_divergence (--allow-divergence), or use last_update_wins or error",
    },
  );
}

function divergedTables(marked: readonly DivergedRow[]): MmliteError {
  const named = marked.slice(0, MAX_NAMED).map(formatTableName).join(", ");
  const more = marked.length > MAX_NAMED ? ` and ${marked.length - MAX_NAMED} more` : "";
  return new MmliteError("conflict", `Nodes may hold different rows of ${named}${more}`, {
    hint:
      "See which rows differ by `mmlite verify TABLE` (`mmlite tables list -o json` says why, `mmlite conflicts list " +
      "--table TABLE` what met), make them equal, then run `mmlite tables clear TABLE`",
  });
}
