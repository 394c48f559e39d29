/**
 * What could not be applied here: which transaction of each node stands in the way, and those that were set aside.
 */
import { retryQuarantined } from "../apply/quarantine_retry.ts";
import type { ApplyObserver } from "../apply/applier.ts";
import type { ApplyClock } from "../apply/gate.ts";
import type { Page } from "../api/control.ts";
import type {
  QuarantineChange,
  QuarantineDetail,
  QuarantineEntry,
  QuarantineList,
} from "../api/quarantine_schemas.ts";
import type { OnError } from "../config.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { ERROR_POLICY, type ErrorKind, MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { readSeenBefore } from "../pg/peers.ts";
import { ensureOrigin, originName } from "../pg/progress.ts";
import {
  countQuarantined,
  discardQuarantined,
  forgetBlocked,
  listQuarantined,
  noteBlocked,
  type QuarantinedTransaction,
  readBlocked,
  readKeptMessages,
  readKeptRelation,
  readQuarantined,
  requestSkip,
  setQuarantineError,
} from "../pg/quarantine.ts";
import type { Query } from "../pg/query.ts";
import type { Relation } from "../pgoutput/message.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";
import { relationIdOf, showChange } from "./quarantine_rows.ts";

/** Greatest id: that of a 64-bit integer. */
const MAX_ID = (1n << 63n) - 1n;

interface QuarantineOptions {
  readonly database: Database;
  /** What is done about a transaction that cannot be applied. */
  readonly onError: OnError;
  /** Runs `work` while nothing is received from a node. */
  readonly withoutInbound: <Result>(sender: string, work: () => Promise<Result>) => Promise<Result>;
  readonly observer: (sender: string) => ApplyObserver;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  /** See `RelationsOptions`. */
  readonly awaitTable: (oid: number) => Promise<void>;
  /** Is told of what applies. */
  readonly applied: Pick<Applied, "add">;
  readonly clock: ApplyClock;
  readonly maxClockWaitMs: number;
  readonly signal: AbortSignal;
}

/** See the module's head. */
export class Quarantine {
  readonly #options: QuarantineOptions;
  readonly #logger = log("quarantine");

  constructor(options: QuarantineOptions) {
    this.#options = options;
  }

  /**
   * What a failure of applying is to be called once it is recorded: one that stands in the way no more when the
   * transaction comes again is temporary.
   */
  async judge(sender: string, error: MmliteError): Promise<MmliteError> {
    const { transaction } = error;
    if (transaction === undefined) return error;
    try {
      const query = this.#query(`record what cannot be applied of "${sender}"`);
      if (error.disposition !== "block") {
        await forgetBlocked(query, sender);
        return error;
      }
      const byItself = this.#options.onError === "quarantine" && error.kind === "apply_failed";
      const { skip } = await noteBlocked(query, { origin: sender, transaction, error, skip: byItself });
      return skip ? comesAgain(error) : error;
    } catch (thrown) {
      this.#logger.warn("{error}", { error: toMmliteError(thrown).message });
      return error;
    }
  }

  /** Has the blocked transaction at `lsn` set aside when it comes again; throws `conflict` if none is there. */
  async skip(sender: string, lsn: Lsn, { dryRun }: { dryRun: boolean }): Promise<void> {
    const query = this.#query(`skip a transaction of "${sender}"`);
    const blocked = (await readBlocked(query)).find(({ origin }) => origin === sender);
    const isThere = blocked !== undefined && (blocked.commitLsn === lsn || blocked.endLsn === lsn);
    if (isThere && (dryRun || await requestSkip(query, sender, lsn))) {
      if (!dryRun) {
        this.#logger.info("Transaction {lsn} of {sender} is skipped", { lsn: formatLsn(lsn), sender });
      }
      return;
    }
    const why = blocked === undefined || isThere
      ? "no transaction of it is blocked here"
      : `the one that is blocked is at ${formatLsn(blocked.commitLsn)}`;
    throw new MmliteError(
      "conflict",
      `Cannot skip the transaction of "${sender}" at ${formatLsn(lsn)}: ${why}`,
      { hint: "`mmlite peers list` on this node shows what is blocked, and where" },
    );
  }

  count(): Promise<number> {
    return countQuarantined(this.#query("count what is in quarantine"));
  }

  /** Transactions after the one that `cursor` names, by id. */
  async list({ cursor, limit }: Page): Promise<QuarantineList> {
    const after = cursor === undefined ? "0" : this.#id(cursor);
    const found = await listQuarantined(this.#query("list what is in quarantine"), {
      after,
      limit: limit + 1,
    });
    const shown = found.slice(0, limit);
    return { items: shown.map(toEntry), next_cursor: found.length > limit ? shown.at(-1)!.id : null };
  }

  /** A transaction with changes after the number that `cursor` gives: at most `limit`, and about a megabyte. */
  async show(id: string, { cursor, limit }: Page): Promise<QuarantineDetail> {
    const entry = await this.#require(id);
    const query = this.#query(`show transaction ${id} in quarantine`);
    const after = cursor === undefined ? 0 : Number(this.#id(cursor));
    const messages = await readKeptMessages(query, { id, after, limit });
    const items: QuarantineChange[] = [];
    const relations = new Map<number, Relation>();
    for (const { number, tableName, message } of messages) {
      const decoded = decodeMessage(message);
      if (decoded.kind === "relation") {
        relations.set(decoded.relationId, decoded);
        continue;
      }
      const relationId = relationIdOf(decoded);
      if (relationId !== undefined && !relations.has(relationId)) {
        relations.set(relationId, await this.#relation(query, { id, relationId, before: number }));
      }
      items.push(showChange({ number, table: tableName, change: decoded }, (id) => relations.get(id)));
    }
    const last = messages.at(-1)?.number ?? after;
    const [next] = await readKeptMessages(query, { id, after: last, limit: 1 });
    return { ...toEntry(entry), rows: { items, next_cursor: next === undefined ? null : String(last) } };
  }

  /** Applies a transaction and takes it out of quarantine, or throws what it fails of and keeps that with it. */
  async retry(id: string, { dryRun }: { dryRun: boolean }): Promise<QuarantineEntry> {
    const transaction = await this.#require(id);
    if (dryRun) return toEntry(transaction);
    const { origin } = transaction;
    try {
      await this.#options.withoutInbound(origin, () => this.#apply(transaction));
    } catch (thrown) {
      const error = inQuarantine(id, toMmliteError(thrown));
      if (error.kind !== "not_found") {
        await setQuarantineError(this.#query(`keep why transaction ${id} failed`), id, error);
      }
      throw error;
    }
    this.#logger.info("Transaction {id} of {origin} is applied, and out of quarantine", { id, origin });
    return toEntry(transaction);
  }

  /** Forgets a transaction for good; throws `not_found`. */
  async discard(id: string): Promise<void> {
    const query = this.#query(`discard transaction ${id} in quarantine`);
    if (!await discardQuarantined(query, this.#id(id))) throw notFound(id);
    this.#logger.info("Transaction {id} in quarantine is discarded", { id });
  }

  async #apply(transaction: QuarantinedTransaction): Promise<void> {
    const { origin } = transaction;
    const { database, observer, policyOf, awaitTable, applied, clock, maxClockWaitMs, signal } =
      this.#options;
    const query = this.#query(`apply a transaction of "${origin}"`);
    await ensureOrigin(query, origin);
    const applying = retryQuarantined({
      target: database.streamTarget,
      origin,
      originName: originName(origin),
      transaction,
      // It is no measure of how far behind this node is.
      observer: { ...observer(origin), committed: () => {}, caughtUp: () => {} },
      policyOf,
      awaitTable,
      clock,
      maxClockWaitMs,
      seenBefore: await readSeenBefore(query, origin),
      signal,
    });
    applied.add({ failed: applying, isBusy: true });
    await applying;
  }

  async #relation(
    query: Query,
    where: { id: string; relationId: number; before: number },
  ): Promise<Relation> {
    const message = await readKeptRelation(query, where);
    const decoded = message === undefined ? undefined : decodeMessage(message);
    if (decoded?.kind === "relation") return decoded;
    throw new MmliteError(
      "internal",
      `Cannot show transaction ${where.id}: relation ${where.relationId} is missing`,
    );
  }

  async #require(id: string): Promise<QuarantinedTransaction> {
    const found = await readQuarantined(this.#query(`find transaction ${id} in quarantine`), this.#id(id));
    if (found === undefined) throw notFound(id);
    return found;
  }

  #id(text: string): string {
    if (/^[0-9]{1,19}$/.test(text) && BigInt(text) <= MAX_ID) return text;
    throw notFound(text);
  }

  #query(doing: string): Query {
    return this.#options.database.control.query(doing);
  }
}

function notFound(id: string): MmliteError {
  return new MmliteError(
    "not_found",
    `Cannot find transaction ${JSON.stringify(id)} in quarantine: there is none`,
    {
      hint: "`mmlite quarantine list` shows them all",
    },
  );
}

/** What is skipped when it comes again stops nothing. */
function comesAgain(error: MmliteError): MmliteError {
  return new MmliteError("transient", error.message, {
    hint: "Nothing to do: the transaction goes to quarantine on the node that receives when it comes again",
    cause: error,
  });
}

/** What the operator of a transaction in quarantine can do: nothing there is tried again by itself. */
function adviceOn(id: string, { kind, hint }: { readonly kind: ErrorKind; readonly hint: string }): string {
  const retry = `run \`mmlite quarantine retry ${id}\``;
  if (ERROR_POLICY[kind].disposition === "retry") return `Wait until it has passed, then ${retry}`;
  if (kind !== "apply_failed" && kind !== "schema_mismatch") return hint;
  return `Remove the cause and ${retry}, or \`mmlite quarantine discard ${id}\``;
}

function inQuarantine(id: string, error: MmliteError): MmliteError {
  return new MmliteError(error.kind, error.message, { hint: adviceOn(id, error), cause: error });
}

function toEntry(transaction: QuarantinedTransaction): QuarantineEntry {
  return {
    id: transaction.id,
    origin: transaction.origin,
    commit_lsn: formatLsn(transaction.commitLsn),
    end_lsn: formatLsn(transaction.endLsn),
    commit_timestamp: transaction.commitTimestamp,
    changes: transaction.changes,
    error: { ...transaction.error, hint: adviceOn(transaction.id, transaction.error) },
    quarantined_at: transaction.quarantinedAt,
  };
}
