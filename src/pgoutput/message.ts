/**
 * The messages of pgoutput, protocol version 1, as values.
 *
 * Layouts: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. Values keep the
 * bytes that came: text is never turned into a string, which could change it.
 */
import type { Lsn } from "../lsn.ts";

/** A column's value: SQL NULL, a TOASTed value that was not sent, or its bytes in text or binary form. */
export type ColumnValue =
  | { readonly kind: "null" }
  | { readonly kind: "unchanged" }
  | { readonly kind: "text"; readonly bytes: Uint8Array }
  | { readonly kind: "binary"; readonly bytes: Uint8Array };

/** A row: one value per column of its Relation message, in that order. */
export type Tuple = readonly ColumnValue[];

/** How the publisher identifies old rows: `pg_class.relreplident`. */
export type ReplicaIdentity = "default" | "nothing" | "full" | "index";

/** A column as the publisher announced it. */
export interface RelationColumn {
  readonly name: string;
  /** Part of the replica identity; with `full` every column is. */
  readonly key: boolean;
  /** OID of the type on the publisher; OIDs differ between servers from 10,000 (16,384 before 12) up. */
  readonly typeOid: number;
  /** `pg_attribute.atttypmod`, -1 for none. */
  readonly typeModifier: number;
}

/** B: a transaction begins. */
export interface Begin {
  readonly kind: "begin";
  /** Start of the commit record; the end is only known at Commit. */
  readonly commitLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTimestamp: bigint;
  readonly xid: number;
}

/** C: the transaction ends. */
export interface Commit {
  readonly kind: "commit";
  readonly commitLsn: Lsn;
  /** End of the commit record: the position that is acked, stored and resumed from. */
  readonly endLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTimestamp: bigint;
}

/** O: the transaction came to the publisher from another node. */
export interface Origin {
  readonly kind: "origin";
  readonly originLsn: Lsn;
  readonly name: string;
}

/** R: a relation's shape, before its first change and again after any change of it. */
export interface Relation {
  readonly kind: "relation";
  readonly relationId: number;
  /** Never empty: the empty name on the wire means `pg_catalog`. */
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
}

/** Y: a user-defined type's name. */
export interface Type {
  readonly kind: "type";
  readonly typeOid: number;
  readonly schema: string;
  readonly name: string;
}

/** I: a row was inserted. */
export interface Insert {
  readonly kind: "insert";
  readonly relationId: number;
  readonly newTuple: Tuple;
}

/** U: a row was updated. At most one of `oldKey` and `oldTuple` is there. */
export interface Update {
  readonly kind: "update";
  readonly relationId: number;
  /** The old identity, sent only if it changed; columns outside of it are null. */
  readonly oldKey?: Tuple;
  /** The whole old row (replica identity full). */
  readonly oldTuple?: Tuple;
  readonly newTuple: Tuple;
}

/** D: a row was deleted. Exactly one of `oldKey` and `oldTuple` is there. */
export interface Delete {
  readonly kind: "delete";
  readonly relationId: number;
  readonly oldKey?: Tuple;
  readonly oldTuple?: Tuple;
}

/** T: tables were truncated. */
export interface Truncate {
  readonly kind: "truncate";
  readonly relationIds: readonly number[];
  readonly cascade: boolean;
  readonly restartIdentity: boolean;
}

/** M: a logical message, written by `pg_logical_emit_message`. */
export interface LogicalMessage {
  readonly kind: "message";
  readonly transactional: boolean;
  readonly lsn: Lsn;
  readonly prefix: string;
  readonly content: Uint8Array;
}

/** The empty payload by which servers up to 13 announce an origin whose name they cannot see. */
export interface UnnamedOrigin {
  readonly kind: "unnamed_origin";
}

/** A: a stream abort that 18.0 to 18.6 send although streaming is off (bug #19616); to be ignored. */
export interface StreamAbort {
  readonly kind: "stream_abort";
}

/** A message of pgoutput, protocol version 1. */
export type Message =
  | Begin
  | Commit
  | Origin
  | Relation
  | Type
  | Insert
  | Update
  | Delete
  | Truncate
  | LogicalMessage
  | UnnamedOrigin
  | StreamAbort;
