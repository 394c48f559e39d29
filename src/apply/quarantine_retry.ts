/**
 * Applies a transaction that was kept in quarantine, in one local transaction that also takes it out of there: with
 * its sender's origin and its own commit time, by the statements that apply what comes from the sender. What the
 * sender has changed since is newer, and stays.
 *
 * Nobody else may hold the origin meanwhile: the caller sees to that.
 */
import type { TablePolicy } from "../conflict_policy.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { formatLsn } from "../lsn.ts";
import { closeClient, destroyClient } from "../pg/client.ts";
import { mapPostgresError } from "../pg/errors.ts";
import {
  deleteQuarantined,
  type KeptMessage,
  lockQuarantined,
  type QuarantinedTransaction,
  readKeptMessages,
} from "../pg/quarantine.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import { SeenVersions } from "../seen_versions.ts";
import type { AppliedLog, Causes } from "./causes.ts";
import { isDisturbed } from "./failure.ts";
import { Gate, type GateOptions } from "./gate.ts";
import type { Targets } from "./held.ts";
import { Relations, type RelationsOptions } from "./relations.ts";
import type { ApplyObserver } from "./report.ts";
import { type ApplySession, type ApplySessionOptions, openApplySession } from "./session.ts";
import { settlementOf } from "./settlement.ts";
import { TransactionWriter } from "./transaction_writer.ts";

/** Messages read at a time, at most. */
const PAGE_MESSAGES = 256;
/** How often it is begun where other sessions come to the same rows. */
const MAX_ATTEMPTS = 5;
const NO_CAUSES: Causes = { areMet: () => true, wait: () => Promise.resolve() };
/** Nothing new of the origin is applied. */
const NO_LOG: AppliedLog = { committing: () => {}, committed: () => {}, visible: () => {} };

/** What applying a transaction again needs. */
export interface RetryOptions extends ApplySessionOptions, Omit<GateOptions, "origin" | "causes"> {
  readonly transaction: QuarantinedTransaction;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  readonly awaitTable?: RelationsOptions["awaitTable"];
  /** See `TransactionWriterOptions`. */
  readonly seenBefore: bigint;
  /** Is told of conflicts and changes, once the transaction is committed. */
  readonly observer: ApplyObserver;
}

/** See the module's head. Throws what the transaction fails of, and `not_found` if it is in quarantine no more. */
export async function retryQuarantined(options: RetryOptions): Promise<void> {
  await passGate(options);
  for (let attempt = 1;; attempt++) {
    try {
      return await retryOnce(options);
    } catch (thrown) {
      // Another session came to the same rows: again, it is settled.
      if (attempt === MAX_ATTEMPTS || !isDisturbed(toMmliteError(thrown))) throw thrown;
    }
  }
}

/** Waits until this server's clock has passed the time of the commit; its causes have been waited for long enough. */
async function passGate({ transaction, signal, ...options }: RetryOptions): Promise<void> {
  const gate = new Gate({ ...options, causes: NO_CAUSES });
  const close = () => gate.close();
  signal.addEventListener("abort", close, { once: true });
  try {
    const { commitLsn, commitMicroseconds: commitTimestamp } = transaction;
    await gate.pass({ commitLsn, commitTimestamp, seen: SeenVersions.NOTHING });
  } finally {
    signal.removeEventListener("abort", close);
  }
}

async function retryOnce(options: RetryOptions): Promise<void> {
  const session = await openApplySession(options);
  const stop = () => destroyClient(session.client);
  options.signal.addEventListener("abort", stop, { once: true });
  try {
    // Unlike what comes from a sender, this does not come again.
    await queryWith(session.client)("SELECT set_config('synchronous_commit', 'local', false)");
    // What the sender did after it is newer, which goes by versions only here.
    await queryWith(session.client)("SELECT set_config('mmlite.out_of_order', 'on', false)");
    await new Retry(session, options).run();
  } catch (thrown) {
    throw mapPostgresError(thrown, `apply the transaction of "${options.origin}"`);
  } finally {
    options.signal.removeEventListener("abort", stop);
    // Breaking the connection off is the rollback.
    stop();
    await closeClient(session.client);
  }
}

class Retry {
  readonly #transaction: QuarantinedTransaction;
  readonly #writer: TransactionWriter;
  readonly #relations: Relations;
  readonly #query: Query;
  #failure: MmliteError | undefined;

  constructor(session: ApplySession, { transaction, ...options }: RetryOptions) {
    this.#transaction = transaction;
    const fail = (error: MmliteError) => void (this.#failure ??= error);
    this.#writer = new TransactionWriter(session, {
      ...options,
      epoch: 0n,
      position: transaction.endLsn,
      applied: NO_LOG,
      others: () => [],
      onDurable: () => {},
      onCommitted: () => {},
      onFailure: fail,
    });
    this.#relations = new Relations({
      serverVersion: session.serverVersion,
      settlementOf: settlementOf(session, options),
      awaitTable: options.awaitTable,
      forget: (target) => this.#writer.forget(target),
    });
    const { pipeline } = this.#writer;
    this.#query = async (text, parameters = []) =>
      await pipeline.query("read the transaction", text, parameters as string[]);
  }

  async run(): Promise<void> {
    try {
      await this.#apply();
    } catch (thrown) {
      // What a statement failed of says more than that a reply is missing.
      throw this.#failure ?? toMmliteError(thrown);
    } finally {
      this.#writer.close();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #apply(): Promise<void> {
    const { id, commitLsn, commitMicroseconds, endLsn, origin } = this.#transaction;
    this.#writer.beginAgain({
      ...{ kind: "begin", commitLsn, commitTimestamp: commitMicroseconds, xid: 0 },
      // What it had seen was not kept.
      seen: SeenVersions.NOTHING,
    });
    if (!await lockQuarantined(this.#query, id)) {
      throw new MmliteError(
        "not_found",
        `Cannot apply the transaction of "${origin}" at ${formatLsn(commitLsn)}: it is in quarantine no more`,
      );
    }
    for (let after = 0;;) {
      const page = await readKeptMessages(this.#query, { id, after, limit: PAGE_MESSAGES });
      if (page.length === 0) break;
      for (const message of page) await this.#take(message);
      after = page.at(-1)!.number;
    }
    await deleteQuarantined(this.#query, id);
    this.#writer.commit(endLsn);
    this.#writer.endBatch();
    await this.#writer.pipeline.settled();
  }

  async #take({ message }: KeptMessage): Promise<void> {
    const decoded = decodeMessage(message);
    switch (decoded.kind) {
      case "relation":
        return this.#relations.announce(decoded);
      case "insert":
      case "update":
      case "delete":
        return await this.#write(await this.#target(decoded.relationId), message);
      case "truncate": {
        const targets = [];
        for (const id of decoded.relationIds) targets.push(await this.#target(id));
        return await this.#write(targets, message);
      }
      default:
        throw new MmliteError("protocol", `Cannot apply a ${decoded.kind} out of quarantine`);
    }
  }

  async #target(relationId: number) {
    return this.#relations.target(relationId) ?? await this.#relations.resolve(relationId, this.#query);
  }

  async #write(targets: Targets, message: Uint8Array): Promise<void> {
    this.#writer.write(targets, message, { start: 0, end: message.length });
    await this.#writer.pipeline.room();
  }
}
