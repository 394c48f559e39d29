/**
 * The members as a node that joins talks to them, each over connections on which it has proven who it is.
 */
import { backoffMs, delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { requestJoin } from "../http/join_client.ts";
import type { TableName } from "../table_name.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import { type JoinAnswer, type JoinRequest, parseJoinAnswer, TABLES_PER_MESSAGE } from "./join_messages.ts";
import type { ComparedTable } from "./table_comparison.ts";

/** How often a request is made again after trouble that passes, before the join fails. */
const MAX_ATTEMPTS = 4;

interface MembersOptions {
  readonly tls: TlsKeys;
  readonly signal: AbortSignal;
}

/** A member that can be dialled. */
export interface ReachableMember {
  readonly name: string;
  /** Where it may be dialled, the likeliest first. */
  readonly urls: readonly string[];
}

/** Calls `ask` for one URL after the other until one is reachable; throws what the last one said. */
export async function firstReachable<Answer>(
  urls: readonly string[],
  ask: (url: URL) => Promise<Answer>,
): Promise<{ url: URL; answer: Answer }> {
  for (const [index, text] of urls.entries()) {
    const url = new URL(text);
    try {
      return { url, answer: await ask(url) };
    } catch (thrown) {
      if (index === urls.length - 1 || toMmliteError(thrown).kind !== "unreachable") throw thrown;
    }
  }
  throw new MmliteError("invalid_input", "Cannot reach a node without address");
}

/** One member; remembers at which of its addresses it answered. */
export class MemberClient {
  readonly name: string;
  readonly #options: MembersOptions;
  #urls: readonly string[];

  constructor({ name, urls }: ReachableMember, options: MembersOptions) {
    this.name = name;
    this.#urls = urls;
    this.#options = options;
  }

  /** Where it answered, or would be tried first. */
  get url(): string {
    return new URL(this.#urls[0]).origin;
  }

  /** Makes this node its peer: when it has answered, what it commits is kept for this node. */
  register(url: string | null): Promise<JoinAnswer<"register">> {
    return this.#ask("register", { step: "register", url });
  }

  /** Takes that back. */
  async leave(): Promise<void> {
    await this.#ask("leave", { step: "leave" });
  }

  /** The names of the tables that it replicates. */
  async tables(): Promise<TableName[]> {
    const tables: TableName[] = [];
    for (;;) {
      const after = tables.at(-1) ?? null;
      const { items, more } = await this.#ask("tables", { step: "tables", after });
      tables.push(...items);
      if (!more || items.length === 0) return tables;
    }
  }

  /** What those of the tables hold that it replicates; `waiting` is called while it reads them. */
  async digest(
    tables: readonly (TableName & { readonly hashed: boolean })[],
    waiting: () => void,
  ): Promise<ComparedTable[]> {
    const run = crypto.randomUUID();
    const digests: ComparedTable[] = [];
    for (let from = 0; from < tables.length; from += TABLES_PER_MESSAGE) {
      const part = tables.slice(from, from + TABLES_PER_MESSAGE);
      for (let answer: ComparedTable[] | null = null; answer === null; waiting()) {
        answer = (await this.#ask("digest", { step: "digest", run, tables: [...part] })).digests;
        if (answer !== null) digests.push(...answer);
      }
    }
    return digests;
  }

  /** Asks again after trouble that passes, such as a transaction that a slot waits for. */
  async #ask<Step extends JoinRequest["step"]>(
    step: Step,
    request: Extract<JoinRequest, { step: Step }>,
  ): Promise<JoinAnswer<Step>> {
    const { signal } = this.#options;
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#askOnce(step, request);
      } catch (thrown) {
        const isPassing = toMmliteError(thrown).kind === "transient";
        if (!isPassing || attempt >= MAX_ATTEMPTS || signal.aborted) throw thrown;
        await delay(backoffMs(attempt), signal);
      }
    }
  }

  async #askOnce<Step extends JoinRequest["step"]>(
    step: Step,
    request: Extract<JoinRequest, { step: Step }>,
  ): Promise<JoinAnswer<Step>> {
    const { tls, signal } = this.#options;
    const material = tls.current;
    const peer = { cluster: material.name.cluster, node: this.name };
    const { url, answer } = await firstReachable(
      this.#urls,
      (url) => requestJoin(url, { material, peer, body: request, signal }),
    );
    this.#urls = [url.origin, ...this.#urls.filter((other) => new URL(other).origin !== url.origin)];
    return parseJoinAnswer(step, answer);
  }
}
