/** Clients that write on nodes while something is tested. */
// @ts-types="@types/pg"
import type pg from "pg";
import { delay } from "../../src/backoff.ts";
import type { ClusterMember } from "./cluster.ts";

/** Whose turn it is, counted from 0. */
export interface WriterTurn {
  /** Which of the nodes. */
  readonly place: number;
  readonly round: number;
  /** Name of the node. */
  readonly node: string;
}

/** A client on each node that calls `write` again and again, with rests, until it is disposed of. */
export function writersOn(
  members: readonly ClusterMember[],
  { restMs, write }: {
    readonly restMs: number;
    readonly write: (client: pg.Client, turn: WriterTurn) => Promise<void>;
  },
): AsyncDisposable {
  const stop = new AbortController();
  const writers = members.map(async ({ server, database, node: { name } }, place) => {
    const client = await server.connect(database);
    try {
      for (let round = 0; !stop.signal.aborted; round++) {
        await write(client, { place, round, node: name });
        await delay(restMs, stop.signal);
      }
    } finally {
      await client.end();
    }
  });
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await Promise.all(writers);
    },
  };
}
