/**
 * The node that is asked about its tables: reads a question, answers it, until the other node ends the channel.
 */
import type { z } from "zod";
import { toMmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import type { SchemaItems } from "../pg/schema_items.ts";
import type { Channel } from "../wire/channel.ts";
import { Lines } from "../wire/lines.ts";
import {
  type Answer,
  type Failure,
  fromMessage,
  fromWrittenMessage,
  packNumbers,
  packRows,
  parseQuestion,
  type Question,
  toMessage,
  toRowMessage,
  unpackNumbers,
} from "./messages.ts";
import type { RowWriter, Side } from "./side.ts";

/** A node that is not answered has this long to ask, milliseconds. */
const FIRST_QUESTION_MS = 10_000;

/** Something that holds a connection. */
interface Closable {
  close(): Promise<void>;
}

/** A node's tables, and what it has of other nodes. */
interface AnsweringSide extends Side, Closable {
  /** How far a third node is applied here, or was when it was removed; nulls where nothing is known of it. */
  applied(node: string): Promise<{ readonly lsn: Lsn | null; readonly at: string | null }>;
}

/** What a node answers with. */
export interface Answering {
  readonly side: AnsweringSide;
  /** What the tables consist of. */
  readonly schema: () => Promise<SchemaItems>;
  /** Opens nothing before it is asked to write. */
  readonly writer: RowWriter & Closable;
  /** The other node has found that all tables are equal. */
  readonly equal: () => Promise<void>;
}

/**
 * Answers on a channel until it ends or `signal` aborts; never throws. `open` is given a signal that aborts as soon
 * as nobody waits for answers any more.
 */
export async function answerQuestions(
  channel: Channel,
  { open, signal }: {
    readonly open: (signal: AbortSignal) => Answering;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const lines = new Lines(channel);
  const gone = new AbortController();
  const breakOff = () => lines.close();
  signal.addEventListener("abort", breakOff, { once: true });
  if (signal.aborted) breakOff();
  const answering = open(AbortSignal.any([signal, gone.signal]));
  // The next question is awaited while one is answered, so that the end is noticed then too.
  const next = async () => {
    const line = await lines.read().catch(() => undefined);
    if (line === undefined) gone.abort();
    return line;
  };
  try {
    let awaited = next();
    for (let line = await awaited; line !== undefined; line = await awaited) {
      awaited = next();
      await lines.write(await answerOrFail(answering, line));
    }
    await lines.end();
  } catch {
    // The channel broke: whoever asked meets the same.
  } finally {
    gone.abort();
    signal.removeEventListener("abort", breakOff);
    lines.close();
    await answering.writer.close();
    await answering.side.close();
  }
}

/** Tells a node that is not to be answered why, once it asks, and ends the channel; never throws. */
export async function refuseQuestions(
  channel: Channel,
  { why, signal }: { readonly why: unknown; readonly signal: AbortSignal },
): Promise<void> {
  const lines = new Lines(channel);
  const breakOff = () => lines.close();
  const late = setTimeout(breakOff, FIRST_QUESTION_MS);
  signal.addEventListener("abort", breakOff, { once: true });
  if (signal.aborted) breakOff();
  try {
    if (await lines.read() !== undefined) await lines.write(toFailure(why));
    await lines.end();
  } catch {
    // The channel broke: whoever asked meets the same.
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", breakOff);
    lines.close();
  }
}

async function answerOrFail(answering: Answering, line: unknown): Promise<unknown> {
  try {
    return await answer(answering, parseQuestion(line));
  } catch (thrown) {
    return toFailure(thrown);
  }
}

function toFailure(thrown: unknown): z.infer<typeof Failure> {
  const { kind, message, hint } = toMmliteError(thrown);
  return { error: { kind, message: kind === "internal" ? "Cannot answer about a table" : message, hint } };
}

async function answer(answering: Answering, question: Question): Promise<Answer<Question["ask"]>> {
  const { side, schema, writer } = answering;
  switch (question.ask) {
    case "tables":
      return {
        tables: (await side.tables()).map((table) => ({
          ...table,
          columns: [...table.columns],
          key: [...table.key],
        })),
      };
    case "read": {
      const { rows, total } = await side.read(question.plan, () => {});
      return { rows, total: String(total) };
    }
    case "groups":
      return { sums: packNumbers(await side.groups()) };
    case "buckets":
      return { sums: packNumbers(await side.bucketsOf(question.groups)) };
    case "open": {
      const rows = await side.open(question.buckets);
      return { rows: rows === null ? null : packRows(rows) };
    }
    case "keys":
      return {
        keys: (await side.keys([...unpackNumbers(question.hashes)])).map((key) =>
          key === null ? null : [...key]
        ),
      };
    case "look":
      return {
        found: (await side.look(question.keys)).map((row) =>
          row === null ? null : { ...row, state: String(row.state) }
        ),
      };
    case "rows":
      return { rows: (await side.rows(question.keys)).map(toRowMessage) };
    case "applied": {
      const { lsn, at } = await side.applied(question.node);
      return { lsn: lsn === null ? null : formatLsn(lsn), at };
    }
    case "equal":
      await answering.equal();
      return {};
    case "schema": {
      const { items, leftOut } = await schema();
      return { items: items.map((item) => ({ ...item, parts: [...item.parts] })), leftOut: [...leftOut] };
    }
    case "prepare":
      await writer.begin(question.table);
      return {};
    case "write": {
      const { rows, alone } = question;
      return { outcomes: await writer.write(rows.map(fromWrittenMessage), { alone }) };
    }
    case "mark":
      return toMessage(await side.mark());
    case "behind": {
      const links = await side.behind({ own: fromMessage(question.own), other: fromMessage(question.other) });
      return { links };
    }
  }
}
