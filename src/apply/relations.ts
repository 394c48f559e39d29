/**
 * The relations that a peer has announced, each mapped to its local table when its first change comes.
 *
 * pgoutput announces a relation again whenever its cache was invalidated; the local table is read again then, and
 * the prepared statements stay if neither side has changed.
 */
import { MmliteError } from "../errors.ts";
import { ColumnTypes } from "../pg/column_types.ts";
import type { Query } from "../pg/query.ts";
import { type LocalTable, readLocalTable } from "../pg/relation.ts";
import type { Relation } from "../pgoutput/message.ts";
import { checkSchema, mapRelation, type Settlement } from "./relation_map.ts";
import { type TargetRelation, toTarget } from "./target_relation.ts";

interface Known {
  remote: Relation;
  /** Undefined until the local table was read since the last announcement. */
  target: TargetRelation | undefined;
  /** What `target` was made from. */
  basis: string;
  former: TargetRelation | undefined;
}

/** What {@link Relations} needs to know. */
export interface RelationsOptions {
  /** `server_version_num`. */
  readonly serverVersion: number;
  readonly settlementOf: (schema: string, name: string) => Settlement;
  /** Resolves once a local table, by its OID, may be written to, or throws; at once where left out. */
  readonly awaitTable?: (oid: number) => Promise<void>;
  /** Is called with a target that is no longer used. */
  readonly forget: (target: TargetRelation) => void;
}

/** Relations by the peer's relation id. */
export class Relations {
  readonly #known = new Map<number, Known>();
  readonly #types = new ColumnTypes();
  readonly #options: RelationsOptions;

  constructor(options: RelationsOptions) {
    this.#options = options;
  }

  /** Takes a Relation message. */
  announce(remote: Relation): void {
    const known = this.#known.get(remote.relationId);
    if (known === undefined) {
      this.#known.set(remote.relationId, { remote, target: undefined, basis: "", former: undefined });
      return;
    }
    known.remote = remote;
    setAside(known);
  }

  /** Reads every local table again before its next change: one has changed since it was read. */
  readAgain(): void {
    for (const known of this.#known.values()) setAside(known);
  }

  /** The target of changes of a relation; undefined if {@link Relations.resolve} must read it first. */
  target(relationId: number): TargetRelation | undefined {
    return this.#find(relationId).target;
  }

  /** Reads the local table and maps the relation; throws `schema_mismatch` if they do not fit. */
  async resolve(relationId: number, query: Query): Promise<TargetRelation> {
    const known = this.#find(relationId);
    checkSchema(known.remote);
    const { schema, name } = known.remote;
    const local = await readLocalTable(query, {
      ...{ schema, name },
      serverVersion: this.#options.serverVersion,
      types: this.#types,
    });
    const target = this.#map(known, local);
    if (local !== undefined) await this.#options.awaitTable?.(local.oid);
    known.target = target;
    known.former = undefined;
    return known.target;
  }

  #map(known: Known, local: LocalTable | undefined): TargetRelation {
    const basis = JSON.stringify([known.remote, local]);
    if (known.former !== undefined && basis === known.basis) return known.former;
    const { schema, name } = known.remote;
    const target = toTarget(mapRelation(known.remote, local, this.#options.settlementOf(schema, name)));
    if (known.former !== undefined) this.#options.forget(known.former);
    known.basis = basis;
    return target;
  }

  #find(relationId: number): Known {
    const known = this.#known.get(relationId);
    if (known !== undefined) return known;
    throw new MmliteError("protocol", `Cannot apply a change: relation ${relationId} was never announced`);
  }
}

/** The target has to be read again; what it was is let go of then. */
function setAside(known: Known): void {
  known.former = known.target ?? known.former;
  known.target = undefined;
}
