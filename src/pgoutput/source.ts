/**
 * Where a link's transactions come from, as `source/` provides it and `link/` uses it.
 *
 * Declared here, beneath both: that a slot feeds it may change.
 */
import type { Lsn } from "../lsn.ts";
import type { MessageBatch } from "./message_batch.ts";

/** Some whole messages, in order. */
export interface SourceBatch {
  /** Verbatim messages of local transactions, good until the next batch is asked for; empty if only `walEnd` moved. A
   * transaction may span batches. */
  readonly messages: MessageBatch;
  /** End of the last transaction that ends in this batch; null if none does. */
  readonly endLsn: Lsn | null;
  /** Everything that ends up to here in the server's WAL was passed on or dropped. */
  readonly walEnd: Lsn;
}

/** Local transactions in commit order. */
export interface Source {
  /** Transactions from the start position on, at first a batch of none that says where that is; iterated once, ends only
   * by throwing what broke the source. */
  batches(): AsyncIterable<SourceBatch>;
  /** Everything up to here is durable at the peer, and noted as such here: the source may forget it. Only forward. */
  confirm(ackedLsn: Lsn): void;
  /** Lets go of what feeds it. */
  close(): Promise<void>;
}
