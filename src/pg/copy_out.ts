/**
 * Rows as `COPY … TO STDOUT` prints them, read from the socket of an idle connection of the driver, which has it back
 * when all have come.
 *
 * The driver would make an object of every row.
 */
import { MmliteError } from "../errors.ts";
import { type Client, clientConnection, destroyClient } from "./client.ts";
import { BACKEND_MESSAGE, decodeServerReport, type ServerReport } from "./copy_both.ts";
import { type CopiedBytes, CopyDataReader } from "./copy_data.ts";
import { mapPostgresError } from "./errors.ts";

/** With more than this unread, bytes, the socket rests. */
const PENDING_BYTES = 0x4_0000;

/** Runs a COPY and yields its rows; `doing` completes "Cannot …". One that is left early breaks the connection off. */
export async function* copyOut(client: Client, sql: string, doing: string): AsyncGenerator<CopiedBytes> {
  const connection = clientConnection(client);
  const socket = connection.stream;
  const pieces: CopiedBytes[] = [];
  let pending = 0;
  let report: ServerReport | undefined;
  let failure: unknown;
  let ended = false;
  let wake = () => {};
  const reader = new CopyDataReader((type, body) => {
    if (type === BACKEND_MESSAGE.errorResponse) report = decodeServerReport(body);
    else if (type === BACKEND_MESSAGE.readyForQuery) ended = true;
  });
  const receive = (chunk: Uint8Array) => {
    try {
      const piece = reader.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      pending += piece.bytes.length;
      if (piece.bytes.length > 0 || piece.rows > 0) pieces.push(piece);
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
      const piece = pieces.shift();
      if (piece !== undefined) {
        pending -= piece.bytes.length;
        if (pending < PENDING_BYTES && socket.isPaused()) socket.resume();
        yield piece;
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
