/**
 * A local table that changes are written to: how the sender's relation maps to it, and what a session keeps for it.
 */
import { type TableHash, tableHash } from "./key_hash.ts";
import type { MappedRelation } from "./relation_map.ts";
import type { RelationStatements } from "./statement_cache.ts";

/** A mapped relation with its prepared statements. */
export interface TargetRelation {
  readonly map: MappedRelation;
  readonly statements: RelationStatements;
  /** Columns that UPDATE cannot set and that are not matched by, so that they may differ here. */
  readonly looseIdentity: boolean;
  /** What the hashes of its keys begin with. */
  readonly hash: TableHash;
}

/** A target without statements. */
export function toTarget(map: MappedRelation): TargetRelation {
  const looseIdentity = map.columns.some((column) =>
    column.identityAlways && !map.key?.columns.includes(column)
  );
  return { map, statements: new Map(), looseIdentity, hash: tableHash(map.hashedAs) };
}
