/**
 * Rows as `COPY … TO STDOUT` prints them, read from the socket of an idle connection of the driver, which has it back
 * when all have come.
 *
 * The driver would make an object of every row, and pg-copy-streams stands still under Deno 2.9.6 on a connection that
 * has been idle.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { type Client, clientConnection, destroyClient } from "./client.ts";
import { BACKEND_MESSAGE, decodeServerReport, MessageFramer, type ServerReport } from "./copy_both.ts";
import { mapPostgresError } from "./errors.ts";

/** With more than this unread, bytes, the socket rests. */
const PENDING_BYTES = 0x10_0000;

/** Some rows, whole. */
export interface CopiedRows {
  readonly bytes: Uint8Array;
  /** How many; in binary one too many at the end. */
  readonly rows: number;
}

/** Runs a COPY and yields its rows; `doing` completes "Cannot …". One that is left early breaks the connection off. */
export async function* copyOut(client: Client, sql: string, doing: string): AsyncGenerator<CopiedRows> {
  const connection = clientConnection(client);
  const socket = connection.stream;
  let pieces: Uint8Array[] = [];
  let pending = 0;
  let report: ServerReport | undefined;
  let failure: unknown;
  let ended = false;
  let wake = () => {};
  const framer = new MessageFramer((type, bytes, start, end) => {
    switch (type) {
      case BACKEND_MESSAGE.copyData:
        pieces.push(bytes.subarray(start, end));
        pending += end - start;
        break;
      case BACKEND_MESSAGE.errorResponse:
        report = decodeServerReport(bytes.subarray(start, end));
        break;
      case BACKEND_MESSAGE.readyForQuery:
        ended = true;
    }
  });
  const receive = (chunk: Uint8Array) => {
    try {
      framer.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    } catch (thrown) {
      failure = thrown;
    }
    if (pending >= PENDING_BYTES) socket.pause();
    wake();
  };
  const closed = () => {
    failure ??= new MmliteError("unreachable", `Cannot ${doing}: the server closed the connection`);
    wake();
  };
  const drivers = socket.listeners("data") as ((chunk: Uint8Array) => void)[];
  for (const listener of drivers) socket.off("data", listener);
  socket.on("data", receive).on("close", closed);
  connection.query(sql);
  try {
    for (;;) {
      if (pending > 0) {
        const rows = pieces.length;
        const bytes = rows === 1 ? pieces[0] : Buffer.concat(pieces);
        [pieces, pending] = [[], 0];
        if (socket.isPaused()) socket.resume();
        yield { bytes, rows };
      } else if (failure !== undefined) throw failure;
      else if (ended) break;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  } finally {
    socket.off("data", receive).off("close", closed);
    for (const listener of drivers) socket.on("data", listener);
    if (!ended) destroyClient(client);
  }
  if (report !== undefined) throw mapPostgresError(report, doing);
}
