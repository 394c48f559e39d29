/** COPY … TO STDOUT over the `pg` package, which speaks its messages without offering them. */
import { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import type pg from "pg";

/** What `command`, a `COPY … TO STDOUT`, sends, byte for byte. */
export async function copyOut(client: pg.Client, command: string): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  // The driver calls these by name: its own name for such an object is Submittable.
  const query = {
    submit: (connection: pg.Connection) => connection.query(command),
    handleCopyData: ({ chunk }: { chunk: Buffer }) => void chunks.push(Buffer.from(chunk)),
    handleCommandComplete: () => {},
    handleReadyForQuery: () => resolve(Buffer.concat(chunks)),
    handleError: reject,
  };
  client.query(query);
  return await promise;
}
