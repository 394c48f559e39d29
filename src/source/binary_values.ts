/**
 * Whether a slot may send values in binary form, which it does for all tables or for none: only while all types are
 * among those that the peer takes so.
 *
 * What the catalog says now may not be what held when a transaction was written, so that each relation is looked at
 * again as it is announced.
 */
import { MmliteError } from "../errors.ts";
import { type Lsn, ZERO_LSN } from "../lsn.ts";
import { publishesOnly } from "../pg/published_types.ts";
import type { Query } from "../pg/query.ts";
import { BINARY_SINCE } from "../pg/replication.ts";
import { readWalLsn } from "../pg/server.ts";
import { isSentInBinary } from "../pgoutput/binary_text.ts";
import type { Relation } from "../pgoutput/message.ts";

/** A session that sends values in binary form. */
export interface BinarySession {
  /** Throws `transient` for a relation with a column of another type than those that the peer takes. */
  readonly check: (relation: Relation) => void;
}

/** Decides for each session of one link. */
export class BinaryValues {
  readonly #query: Query;
  readonly #serverVersion: number;
  /** A relation did not fit, in a session that was opened since. */
  #refused = false;
  /** Relations that do not fit may be announced up to here. */
  #textUntil: Lsn = ZERO_LSN;

  constructor({ query, serverVersion }: { query: Query; serverVersion: number }) {
    this.#query = query;
    this.#serverVersion = serverVersion;
  }

  /** For a session from `startLsn` on with a peer that takes these types, by their OIDs; undefined where values have to
   * be text. */
  async session(startLsn: Lsn, taken: readonly number[]): Promise<BinarySession | undefined> {
    const types = taken.filter(isSentInBinary);
    if (this.#serverVersion < BINARY_SINCE || types.length === 0) return;
    if (this.#refused) this.#textUntil = await readWalLsn(this.#query);
    this.#refused = false;
    if (startLsn < this.#textUntil || !await publishesOnly(this.#query, types)) return;
    return { check: (relation) => this.#check(relation, types) };
  }

  #check({ schema, name, columns }: Relation, types: readonly number[]): void {
    const other = columns.find(({ typeOid }) => !types.includes(typeOid));
    if (other === undefined) return;
    this.#refused = true;
    throw new MmliteError(
      "transient",
      `Cannot send "${schema}.${name}" in binary form: column "${other.name}" is of a type that only goes as text`,
      { hint: "Nothing to do: the link begins again at once, with values as text" },
    );
  }
}
