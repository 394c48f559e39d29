/**
 * What the tables `mmlite.apply_group` and `mmlite.tombstone` have in common: lists of rows, by the node that came to
 * them and the time of its last transaction.
 */

/** What is kept of a node's transactions, bytes. */
export interface KeptOfOrigin {
  readonly origin: string;
  readonly bytes: number;
}
