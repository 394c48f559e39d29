/**
 * Rows that were fetched whole from the node that sends, because values of them were not sent: they wait until they can
 * be written between its transactions.
 */
import { toMmliteError } from "../errors.ts";
import type { Tuple } from "../pgoutput/message.ts";
import type { ApplyClock } from "./gate.ts";
import type { Relations } from "./relations.ts";
import type { TargetRelation } from "./target_relation.ts";
import type { TransactionWriter } from "./transaction_writer.ts";

/** A row as its author has it, which is the node that sends here. */
export interface FetchedRow {
  readonly schema: string;
  readonly name: string;
  /** Names of the columns that tell rows apart. */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly values: Tuple;
  /** When it was committed there, microseconds since 2000-01-01 UTC. */
  readonly at: bigint;
}

/** What the rows need. */
interface FetchedRowsOptions {
  readonly clock: ApplyClock;
  readonly relations: Relations;
  /** Reads the local table of a relation that was announced. */
  readonly resolve: (relationId: number) => Promise<TargetRelation>;
}

/** See the module's head. */
export class FetchedRows {
  readonly #options: FetchedRowsOptions;
  /** Ids of the relations that the rows are of. */
  readonly #ids = new Map<string, number>();
  readonly #waiting: { readonly target: TargetRelation; readonly values: Tuple; readonly at: bigint }[] = [];

  constructor(options: FetchedRowsOptions) {
    this.#options = options;
  }

  /** Whether none waits. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Takes a row; one that does not fit the table here is left out, and comes when it is fetched again. */
  async take({ schema, name, key, columns, values, at }: FetchedRow): Promise<void> {
    const { relations, resolve } = this.#options;
    const label = JSON.stringify([schema, name]);
    // Apart from those that are announced by the sender, which are positive.
    const relationId = this.#ids.get(label) ?? -1 - this.#ids.size;
    this.#ids.set(label, relationId);
    relations.announce({
      kind: "relation",
      relationId,
      schema,
      name,
      replicaIdentity: "default",
      columns: columns.map((name) => ({ name, key: key.includes(name), typeOid: 0, typeModifier: -1 })),
    });
    try {
      const target = await resolve(relationId);
      if (target.map.key !== null) this.#waiting.push({ target, values, at });
    } catch (thrown) {
      if (toMmliteError(thrown).kind !== "schema_mismatch") throw thrown;
    }
  }

  /** Writes all of them, between transactions, and forgets them. */
  write(writer: TransactionWriter): void {
    for (const { target, values, at } of this.#waiting.splice(0)) {
      // One of later than now here comes again when it is asked for again.
      if (this.#options.clock.untilPassed(at) > 0) continue;
      writer.writeFetched(target, values, at);
    }
  }
}
