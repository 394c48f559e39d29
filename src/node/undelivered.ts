/**
 * What a peer has not acknowledged of what was committed here: its slot is read, and stays where it is.
 */
import type { Undelivered } from "../api/removal_schemas.ts";
import { delay } from "../backoff.ts";
import { toMmliteError } from "../errors.ts";
import { formatLsn, type Lsn, maxLsn } from "../lsn.ts";
import { readPeer } from "../pg/peers.ts";
import { PUBLICATIONS } from "../pg/publication.ts";
import { readWalLsn } from "../pg/server.ts";
import { readSlot, slotName } from "../pg/slots.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import { MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import type { MessageBatch } from "../pgoutput/message_batch.ts";
import type { Source } from "../pgoutput/source.ts";
import { openSource } from "../source/source.ts";
import { formatTableName } from "../table_name.ts";
import type { Database } from "./database.ts";

/** Changes that are counted at most: a second or two of reading. */
const MAX_CHANGES = 200_000;
/** How long is counted at most, milliseconds. */
const MAX_COUNT_MS = 10_000;

const SLOT_RETRY_MS = 100;

type TableCounts = Undelivered["tables"][number];

interface CountOptions {
  readonly database: Database;
  /** A peer whose slot nobody reads. */
  readonly peer: string;
  readonly maxChanges?: number;
}

/** Counts what a peer has not acknowledged, up to a bound; never throws. */
export async function countUndelivered(
  { database, peer, maxChanges = MAX_CHANGES }: CountOptions,
): Promise<Undelivered> {
  const counts = new Counts(maxChanges);
  let afterLsn: Lsn | null = null;
  let walLsn: Lsn | null = null;
  let problem: string | null = null;
  let isWhole = false;
  try {
    const query = database.control.query(`count what peer "${peer}" lacks`);
    const row = await readPeer(query, peer);
    const slot = await readSlot(query, slotName(peer));
    walLsn = await readWalLsn(query);
    const confirmed = slot?.lost === false ? slot.confirmedFlushLsn : null;
    const acked = row?.ackedLsn ?? row?.slotLsn ?? null;
    afterLsn = acked === null ? confirmed : confirmed === null ? acked : maxLsn(acked, confirmed);
    if (confirmed === null) problem = `there is no slot for it any more that keeps it`;
    else isWhole = await readSlotUntil(walLsn, { database, peer, afterLsn: afterLsn!, confirmed, counts });
  } catch (thrown) {
    problem = toMmliteError(thrown).message;
  }
  return {
    after_lsn: afterLsn === null ? null : formatLsn(afterLsn),
    wal_bytes: afterLsn === null || walLsn === null ? null : String(maxLsn(walLsn, afterLsn) - afterLsn),
    complete: isWhole,
    problem,
    ...counts.report(),
  };
}

/** Whether all was read. */
async function readSlotUntil(
  until: Lsn,
  { database, peer, afterLsn, confirmed, counts }: {
    readonly database: Database;
    readonly peer: string;
    readonly afterLsn: Lsn;
    readonly confirmed: Lsn;
    readonly counts: Counts;
  },
): Promise<boolean> {
  const late = AbortSignal.timeout(MAX_COUNT_MS);
  const source = await openReleased({
    ...{ target: database.streamTarget, slot: slotName(peer), publications: PUBLICATIONS },
    ...{ startLsn: afterLsn, flushLsn: confirmed, serverVersion: database.facts.versionNumber },
    signal: late,
  }, late);
  try {
    for await (const { messages, walEnd } of source.batches()) {
      if (!counts.take(messages)) return false;
      if (walEnd >= until) return true;
    }
    return false;
  } catch (thrown) {
    if (late.aborted) return false;
    throw thrown;
  } finally {
    await source.close();
  }
}

/** The link that was stopped a moment ago may hold the slot still. */
async function openReleased(options: Parameters<typeof openSource>[0], signal: AbortSignal): Promise<Source> {
  for (;;) {
    try {
      return await openSource(options);
    } catch (thrown) {
      if (toMmliteError(thrown).kind !== "transient" || signal.aborted) throw thrown;
      await delay(SLOT_RETRY_MS, signal);
    }
  }
}

class Counts {
  readonly #maxChanges: number;
  readonly #tables = new Map<number, { readonly name: string; readonly counts: TableCounts }>();
  #transactions = 0;
  #changes = 0;
  #first: bigint | undefined;
  #last: bigint | undefined;

  constructor(maxChanges: number) {
    this.#maxChanges = maxChanges;
  }

  /** Whether there may be more. */
  take(messages: MessageBatch): boolean {
    for (let index = 0; index < messages.length; index++) {
      this.#take(messages.bytes(index).subarray(messages.start(index), messages.end(index)));
      if (this.#changes >= this.#maxChanges) return false;
    }
    return true;
  }

  report() {
    const time = (at: bigint | undefined) => at === undefined ? null : formatTimestamp(at);
    return {
      transactions: this.#transactions,
      changes: this.#changes,
      tables: [...this.#tables.values()].map(({ counts }) => counts)
        .filter(({ inserts, updates, deletes, truncates }) => inserts + updates + deletes + truncates > 0)
        .sort((a, b) => a.table < b.table ? -1 : 1),
      first_committed_at: time(this.#first),
      last_committed_at: time(this.#last),
    };
  }

  #take(bytes: Uint8Array): void {
    const type = messageType(bytes);
    switch (type) {
      case MESSAGE_TYPE.begin: {
        const begin = decodeMessage(bytes);
        if (begin.kind !== "begin") return;
        this.#transactions++;
        this.#first ??= begin.commitTimestamp;
        this.#last = begin.commitTimestamp;
        return;
      }
      case MESSAGE_TYPE.relation: {
        const relation = decodeMessage(bytes);
        if (relation.kind !== "relation") return;
        const name = formatTableName({ schema: relation.schema, name: relation.name });
        if (this.#tables.get(relation.relationId)?.name === name) return;
        const counts = { table: name, inserts: 0, updates: 0, deletes: 0, truncates: 0 };
        this.#tables.set(relation.relationId, { name, counts });
        return;
      }
      case MESSAGE_TYPE.insert:
        return this.#count(relationOf(bytes), "inserts");
      case MESSAGE_TYPE.update:
        return this.#count(relationOf(bytes), "updates");
      case MESSAGE_TYPE.delete:
        return this.#count(relationOf(bytes), "deletes");
      case MESSAGE_TYPE.truncate: {
        const truncate = decodeMessage(bytes);
        if (truncate.kind !== "truncate") return;
        for (const id of truncate.relationIds) this.#count(id, "truncates");
      }
    }
  }

  #count(relation: number, kind: Exclude<keyof TableCounts, "table">): void {
    this.#changes++;
    const table = this.#tables.get(relation);
    if (table !== undefined) table.counts[kind]++;
  }
}

/** The relation's OID follows the type of each of these; rows are not decoded. */
function relationOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
}
