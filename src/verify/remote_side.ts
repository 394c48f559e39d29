/**
 * A peer's tables, as they are compared: it is asked over a channel, one question after the other.
 */
import { isErrorKind, MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import type { Mark } from "../pg/marks.ts";
import type { LookedUp, ScannedRow } from "../pg/table_scan.ts";
import type { WholeRow } from "../pg/whole_rows.ts";
import type { SchemaItems } from "../pg/schema_items.ts";
import { toPrintable } from "../printable.ts";
import type { Channel } from "../wire/channel.ts";
import { Lines } from "../wire/lines.ts";
import {
  type Answer,
  Failure,
  fromMessage,
  fromRowMessage,
  packNumbers,
  parseAnswer,
  type Question,
  toMessage,
  toWrittenMessage,
  unpackNumbers,
  unpackRows,
} from "./messages.ts";
import type { ComparisonPlan, Key, Link, RowWriter, Side, TableShape } from "./side.ts";

/** See the module's head. {@link RemoteSide.close} ends the channel. */
export class RemoteSide implements Side {
  readonly node: string;
  readonly #lines: Lines;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(node: string, channel: Channel) {
    this.node = node;
    this.#lines = new Lines(channel);
  }

  /** Bytes that came and went. */
  get bytes(): number {
    return this.#lines.bytes;
  }

  /** Ends the channel. */
  async close(): Promise<void> {
    await this.#lines.end();
  }

  /** Breaks the channel off. */
  breakOff(): void {
    this.#lines.close();
  }

  async tables(): Promise<TableShape[]> {
    return (await this.#ask({ ask: "tables" })).tables;
  }

  async read(plan: ComparisonPlan): Promise<{ rows: number; total: bigint }> {
    const { rows, total } = await this.#ask({ ask: "read", plan });
    return { rows, total: BigInt(total) };
  }

  async groups(): Promise<BigUint64Array> {
    return unpackNumbers((await this.#ask({ ask: "groups" })).sums);
  }

  async bucketsOf(groups: readonly number[]): Promise<BigUint64Array> {
    return unpackNumbers((await this.#ask({ ask: "buckets", groups: [...groups] })).sums);
  }

  async open(buckets: readonly number[]): Promise<Map<bigint, ScannedRow> | null> {
    const { rows } = await this.#ask({ ask: "open", buckets: [...buckets] });
    return rows === null ? null : unpackRows(rows);
  }

  async keys(hashes: readonly bigint[]): Promise<(Key | null)[]> {
    if (hashes.length === 0) return [];
    return (await this.#ask({ ask: "keys", hashes: packNumbers(hashes) })).keys;
  }

  async look(keys: readonly Key[]): Promise<(LookedUp | null)[]> {
    const { found } = await this.#ask({ ask: "look", keys: keys.map((key) => [...key]) });
    return found.map((row) => row === null ? null : { ...row, state: BigInt(row.state) });
  }

  async rows(keys: readonly Key[]): Promise<WholeRow[]> {
    const { rows } = await this.#ask({ ask: "rows", keys: keys.map((key) => [...key]) });
    return rows.map(fromRowMessage);
  }

  /** Tells the peer that all tables are equal. */
  async tellEqual(): Promise<void> {
    await this.#ask({ ask: "equal" });
  }

  /** How far a third node is applied there, or was when it was removed; nulls where nothing is known of it. */
  async applied(node: string): Promise<{ lsn: Lsn | null; at: string | null }> {
    const { lsn, at } = await this.#ask({ ask: "applied", node });
    return { lsn: lsn === null ? null : parseLsn(lsn), at };
  }

  /** What its tables consist of. */
  async schema(): Promise<SchemaItems> {
    return await this.#ask({ ask: "schema" });
  }

  /** Writes rows there. */
  readonly writer: RowWriter = {
    begin: async ({ schema, name }) => void await this.#ask({ ask: "prepare", table: { schema, name } }),
    write: async (rows, { alone = false } = {}) => {
      if (rows.length === 0) return [];
      const { outcomes } = await this.#ask({ ask: "write", rows: rows.map(toWrittenMessage), alone });
      if (outcomes.length === rows.length) return outcomes;
      throw new MmliteError(
        "protocol",
        `Cannot tell what node "${this.node}" wrote: not one outcome for each row`,
      );
    },
  };

  async mark(): Promise<Mark> {
    return fromMessage(await this.#ask({ ask: "mark" }));
  }

  async behind({ own, other }: { own: Mark; other: Mark }): Promise<Link[]> {
    return (await this.#ask({ ask: "behind", own: toMessage(own), other: toMessage(other) })).links;
  }

  #ask<Ask extends Question["ask"]>(question: Extract<Question, { ask: Ask }>): Promise<Answer<Ask>> {
    const turn = this.#turn.then(() => this.#askNow(question));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #askNow<Ask extends Question["ask"]>(
    question: Extract<Question, { ask: Ask }>,
  ): Promise<Answer<Ask>> {
    await this.#lines.write(question);
    const line = await this.#lines.read();
    if (line === undefined) {
      throw new MmliteError(
        "unreachable",
        `Cannot ask node "${this.node}" about its tables: it ended the stream`,
      );
    }
    const { data: failure } = Failure.safeParse(line);
    if (failure === undefined) return parseAnswer(question.ask, line);
    const { kind, message, hint } = failure.error;
    throw new MmliteError(
      isErrorKind(kind) ? kind : "internal",
      `${toPrintable(message)} (on "${this.node}")`,
      {
        hint: toPrintable(hint),
      },
    );
  }
}
