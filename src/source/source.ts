/**
 * A source over a replication slot: its local transactions, and our position back.
 */
import { type Lsn, maxLsn } from "../lsn.ts";
import { openReplicationStream, type ReplicationOptions } from "../pg/replication.ts";
import type { ReplicationStream } from "../pg/walsender_stream.ts";
import { MessageBatch } from "../pgoutput/message_batch.ts";
import type { Source, SourceBatch } from "../pgoutput/source.ts";
import type { CopiedFrom } from "../wire/frame.ts";
import type { BinarySession } from "./binary_values.ts";
import { copiedIn } from "./copied.ts";
import { type Filtered, TransactionFilter } from "./filter.ts";

/** Told after every read which transactions ended in it, passed on or dropped. */
export type SourceObserver = (ended: Pick<Filtered, "local" | "foreign" | "empty">) => void;

/** What {@link openSource} takes. */
export interface SourceOptions extends Omit<ReplicationOptions, "binary"> {
  /** What the peer has already; null for nothing. */
  readonly copied?: CopiedFrom | null;
  /** Values come in binary form; as text where left out. */
  readonly binary?: BinarySession;
  readonly observer?: SourceObserver;
}

/** Opens the source over its slot. Errors as of `openReplicationStream`. */
export async function openSource({ observer, ...options }: SourceOptions): Promise<Source> {
  const stream = await openReplicationStream({ ...options, binary: options.binary !== undefined });
  return new SlotSource(stream, { ...options, observer });
}

/** A source over any replication stream. */
export class SlotSource implements Source {
  readonly #stream: ReplicationStream;
  readonly #observer: SourceObserver | undefined;
  readonly #filter: TransactionFilter;
  #ackedLsn: Lsn;
  /** End of the last transaction that was passed on, in this session or an earlier one. */
  #emittedLsn: Lsn;
  /** Everything that ends up to here was passed on or dropped. */
  #passedLsn: Lsn;

  constructor(
    stream: ReplicationStream,
    options: Pick<SourceOptions, "startLsn" | "flushLsn" | "observer" | "copied" | "binary">,
  ) {
    this.#filter = new TransactionFilter({
      isCopied: options.copied == null ? undefined : copiedIn(options.copied),
      check: options.binary?.check,
    });
    this.#stream = stream;
    this.#observer = options.observer;
    this.#ackedLsn = options.flushLsn;
    // The peer holds what ends up to here, but not yet for certain on disk: its first ack says so.
    this.#emittedLsn = options.startLsn;
    // What the slot is confirmed to was for others, or the peer has acked it.
    this.#passedLsn = maxLsn(options.startLsn, options.flushLsn);
  }

  async *batches(): AsyncIterable<SourceBatch> {
    yield { messages: new MessageBatch(), endLsn: null, walEnd: this.#passedLsn };
    while (true) {
      const { messages, keepaliveLsn } = await this.#stream.read();
      const filtered = this.#filter.push(messages);
      this.#observer?.(filtered);
      const before = this.#passedLsn;
      this.#pass(filtered.endLsn, keepaliveLsn);
      const walEnd = this.#passedLsn;
      if (filtered.messages.length > 0 || walEnd > before) {
        yield { messages: filtered.messages, endLsn: filtered.endLsn, walEnd };
      }
    }
  }

  confirm(ackedLsn: Lsn): void {
    this.#ackedLsn = maxLsn(this.#ackedLsn, ackedLsn);
    this.#moveSlot();
  }

  async close(): Promise<void> {
    await this.#stream.close();
  }

  #pass(endLsn: Lsn | null, keepaliveLsn: Lsn): void {
    if (endLsn !== null) this.#emittedLsn = endLsn;
    const endedLsn = maxLsn(this.#emittedLsn, this.#filter.droppedEndLsn);
    // A keepalive inside a transaction would be right too, but nothing is gained by relying on it.
    const readLsn = this.#filter.isBetween ? maxLsn(endedLsn, keepaliveLsn) : endedLsn;
    this.#passedLsn = maxLsn(this.#passedLsn, readLsn);
    this.#moveSlot();
  }

  /** With nothing un-acked the slot follows what was dropped and what other databases wrote, or it pins WAL. */
  #moveSlot(): void {
    const idle = this.#ackedLsn >= this.#emittedLsn;
    this.#stream.confirm(idle ? maxLsn(this.#ackedLsn, this.#passedLsn) : this.#ackedLsn);
  }
}
