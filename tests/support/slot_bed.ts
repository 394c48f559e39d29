/**
 * A database with publications and a slot, and what the source makes of it: the bed of the source's tests.
 */
import { type Lsn, ZERO_LSN } from "../../src/lsn.ts";
import { closeClient, openClient } from "../../src/pg/client.ts";
import {
  ensurePublications,
  planPublications,
  PUBLICATIONS,
  publishedTables,
} from "../../src/pg/publication.ts";
import { type Query, queryWith } from "../../src/pg/query.ts";
import { createSlot } from "../../src/pg/slots.ts";
import { tableMatcher } from "../../src/pg/table_pattern.ts";
import { readTables } from "../../src/pg/tables.ts";
import { parsePostgresUrl, type PostgresTarget } from "../../src/pg/target.ts";
import { decodeMessage } from "../../src/pgoutput/decode.ts";
import type { Source, SourceBatch } from "../../src/pgoutput/source.ts";
import type { BinarySession } from "../../src/source/binary_values.ts";
import { openSource, type SourceObserver } from "../../src/source/source.ts";
import { messagesOf } from "./message_batch.ts";
import type { PostgresServer } from "./postgres.ts";

/** A database and a superuser's session on it. */
export interface SlotBed extends AsyncDisposable {
  readonly server: PostgresServer;
  /** Name of the slot. */
  readonly slot: string;
  readonly target: PostgresTarget;
  readonly serverVersion: number;
  readonly query: Query;
  /** Makes the publications fit the tables; returns the statements that were run. */
  publish(include?: string[], exclude?: string[]): Promise<string[]>;
  /** Publishes, and creates the slot (anew, if it is there); where it begins. */
  ensureSlot(): Promise<Lsn>;
  source(
    options?: { startLsn?: Lsn; observer?: SourceObserver; binary?: BinarySession; signal?: AbortSignal },
  ): Promise<Source>;
}

/** Makes database `name` on the server, with `schema` run in it. */
export async function makeSlotBed(
  server: PostgresServer,
  { name, schema }: { name: string; schema: string },
): Promise<SlotBed> {
  await server.createDatabase(name);
  const target = await parsePostgresUrl(server.url(name), {});
  const client = await openClient(target, { applicationName: "test", settings: { search_path: "public" } });
  const query = queryWith(client);
  await query(schema);
  const [{ version }] = await query("SELECT current_setting('server_version_num') AS version");
  const serverVersion = Number(version);
  const publish = async (include = ["*.*"], exclude: string[] = []) => {
    const matches = tableMatcher({ include, exclude });
    const published = publishedTables(await readTables(query), { matches, serverVersion });
    return await ensurePublications(query, {
      wanted: planPublications(published, serverVersion),
      serverVersion,
    });
  };
  const slot = `mmlite_${name}`;
  return {
    server,
    slot,
    target,
    serverVersion,
    query,
    publish,
    ensureSlot: async () => {
      await publish();
      return await createSlot(query, { target, name: slot });
    },
    source: ({ startLsn = ZERO_LSN, observer, binary, signal } = {}) =>
      openSource({
        target,
        slot,
        publications: PUBLICATIONS,
        startLsn,
        flushLsn: startLsn,
        serverVersion,
        observer,
        binary,
        signal,
      }),
    [Symbol.asyncDispose]: () => closeClient(client),
  };
}

/** A whole transaction: its messages as letters, and the first column of each insert. */
export interface SeenTransaction {
  readonly kinds: string;
  readonly inserted: string[];
  readonly endLsn: Lsn;
}

/** Reads a source transaction by transaction; acks nothing. */
export async function* transactionsOf(source: Source): AsyncGenerator<SeenTransaction> {
  let kinds = "";
  let inserted: string[] = [];
  for await (const { messages } of source.batches()) {
    for (const bytes of messagesOf(messages)) {
      const message = decodeMessage(bytes);
      kinds += String.fromCharCode(bytes[0]);
      if (message.kind === "insert" && message.newTuple[0].kind === "text") {
        inserted.push(new TextDecoder().decode(message.newTuple[0].bytes));
      }
      if (message.kind !== "commit") continue;
      yield { kinds, inserted, endLsn: message.endLsn };
      kinds = "";
      inserted = [];
    }
  }
}

/** Reads on and on into nothing, confirming what came if told to; ends when the source does, with its error. */
export async function drain(
  source: Source,
  { confirm = false, seen = () => {} }: { confirm?: boolean; seen?: (batch: SourceBatch) => void } = {},
): Promise<Error> {
  try {
    for await (const batch of source.batches()) {
      seen(batch);
      if (confirm && batch.endLsn !== null) source.confirm(batch.endLsn);
    }
    throw new Error("the source ended without an error");
  } catch (error) {
    return error as Error;
  }
}
