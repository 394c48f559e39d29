/**
 * How conflicts are settled on this node: by the API's word for a table, else by the file's, else by the default.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { ConflictsConfig } from "../config.ts";
import {
  CONFLICT_POLICIES,
  CONFLICT_TYPES,
  type ConflictPolicy,
  type ConflictType,
  type TablePolicy,
} from "../conflict_policy.ts";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import {
  deleteTablePolicy,
  readTablePolicies,
  saveTablePolicy,
  type TablePolicyRow,
} from "../pg/table_policies.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import type { Database } from "./database.ts";

/** A table's policy, and who said so. */
export interface PolicySetting extends TablePolicy {
  readonly from: "default" | "file" | "api";
}

interface ConflictPoliciesOptions {
  readonly database: Pick<Database, "control"> & {
    readonly facts: Pick<Database["facts"], "trackCommitTimestamp">;
  };
  readonly configured: Pick<ConflictsConfig, "default" | "isDefault" | "tables">;
  /** Some table's conflicts are settled in another way from now on. */
  readonly changed: () => void;
}

const Stored = z.strictObject({
  policy: z.enum(CONFLICT_POLICIES),
  types: z.partialRecord(z.enum(CONFLICT_TYPES), z.enum(CONFLICT_POLICIES)).default({}),
});

/** See the module. Changes happen one after the other. */
export class ConflictPolicies {
  readonly #options: ConflictPoliciesOptions;
  readonly #logger = log("conflicts");
  readonly #default: PolicySetting;
  /** By {@link tableKey}, as the two below. */
  readonly #ofFile: ReadonlyMap<string, NamedPolicy>;
  #ofApi: ReadonlyMap<string, NamedPolicy> = new Map();
  #digest: string;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ConflictPoliciesOptions) {
    this.#options = options;
    const { configured } = options;
    this.#default = { ...configured.default, from: configured.isDefault ? "default" : "file" };
    this.#ofFile = byKey(configured.tables);
    this.#digest = this.#makeDigest();
  }

  /** Takes up what was set through the API; throws `config` for what this version does not know. */
  async load(): Promise<void> {
    const rows = await readTablePolicies(this.#query("read the policies of tables"));
    this.#ofApi = byKey(rows.map((row) => ({ ...row, policy: parseStored(row) })));
    this.#digest = this.#makeDigest();
  }

  /** How conflicts of a table are settled. */
  policyOf(schema: string, name: string): TablePolicy {
    const { policy, types } = this.settingOf({ schema, name });
    return { policy, types };
  }

  /** What was said of a table. */
  settingOf(table: TableName): PolicySetting {
    const key = tableKey(table);
    const ofApi = this.#ofApi.get(key);
    if (ofApi !== undefined) return { ...ofApi.policy, from: "api" };
    return this.#ofFileOrDefault(key);
  }

  /** What would be said of a table if it had this policy, or with null none through the API. */
  imagine(table: TableName, policy: TablePolicy | null): PolicySetting {
    return policy === null ? this.#ofFileOrDefault(tableKey(table)) : { ...policy, from: "api" };
  }

  /** Stands for all policies as they take effect: nodes with the same one settle every conflict alike. */
  get digest(): string {
    return this.#digest;
  }

  /**
   * Sets a table's policy, or with null forgets what was set through the API. `require` is called in the same turn,
   * before anything is written, and throws to keep it as it is.
   */
  set(table: TableName, policy: TablePolicy | null, require: () => void): Promise<void> {
    const change = () => this.#set(table, policy, require);
    const turn = this.#turn.then(change, change);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #set(table: TableName, policy: TablePolicy | null, require: () => void): Promise<void> {
    require();
    const query = this.#query(`set the policy of table ${formatTableName(table)}`);
    const next = new Map(this.#ofApi);
    if (policy === null) {
      await deleteTablePolicy(query, table);
      next.delete(tableKey(table));
    } else {
      await saveTablePolicy(query, { ...table, policy: JSON.stringify(policy) });
      next.set(tableKey(table), { ...table, policy });
    }
    this.#ofApi = next;
    const before = this.#digest;
    this.#digest = this.#makeDigest();
    if (this.#digest === before) return;
    this.#logger.info("Conflicts of table {table} are settled by {policy} now", {
      table: formatTableName(table),
      policy: this.settingOf(table).policy,
    });
    this.#options.changed();
  }

  #ofFileOrDefault(key: string): PolicySetting {
    const ofFile = this.#ofFile.get(key);
    return ofFile === undefined ? this.#default : { ...ofFile.policy, from: "file" };
  }

  /** Without versions of rows nothing can go by them: what comes is written (`apply/statements.ts`). */
  #effective({ policy, types }: TablePolicy): TablePolicy {
    if (this.#options.database.facts.trackCommitTimestamp) return { policy, types };
    return {
      policy: withoutVersions(policy),
      types: Object.fromEntries(Object.entries(types).map(([type, one]) => [type, withoutVersions(one)])),
    };
  }

  /** In one form for all ways to say the same. */
  #makeDigest(): string {
    const byDefault = canonical(this.#effective(this.#default));
    const tables = new Map([...this.#ofFile, ...this.#ofApi]);
    const others = [...tables.keys()].sort()
      .map((key) => [key, canonical(this.#effective(tables.get(key)!.policy))])
      .filter(([_, policy]) => policy !== byDefault);
    return createHash("sha256").update(JSON.stringify([byDefault, others])).digest("hex").slice(0, 16);
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }
}

type NamedPolicy = TableName & { readonly policy: TablePolicy };

function byKey(tables: readonly NamedPolicy[]): ReadonlyMap<string, NamedPolicy> {
  return new Map(tables.map((table) => [tableKey(table), table]));
}

function withoutVersions(policy: ConflictPolicy): ConflictPolicy {
  return policy === "last_update_wins" ? "apply_remote" : policy;
}

/** A policy as text that is the same for what has the same effect. */
function canonical({ policy, types }: TablePolicy): string {
  const others = Object.entries(types).filter(([_, one]) => one !== policy).sort();
  return JSON.stringify([policy, others]);
}

function parseStored({ policy, ...table }: TablePolicyRow): TablePolicy {
  const stored = Stored.safeParse(JSON.parse(policy));
  if (stored.success) {
    return stored.data as { policy: ConflictPolicy; types: Partial<Record<ConflictType, ConflictPolicy>> };
  }
  throw new MmliteError(
    "config",
    `Cannot use the policy of table ${
      formatTableName(table)
    } in mmlite.table_policy: this version does not know it`,
    { hint: "Run the newer mmlite that made it, or delete its row there" },
  );
}
