import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import { toMmliteError } from "../errors.ts";
import { ZERO_LSN } from "../lsn.ts";
import type { Client } from "./client.ts";
import { WalsenderStream } from "./walsender_stream.ts";

const COPY_BOTH = message("W", "\0\0\0");

/** A backend message with a body of one-byte characters. */
function message(type: string, body: string): Buffer {
  const bytes = Buffer.from(`${type}....${body}`, "latin1");
  bytes.writeUInt32BE(body.length + 4, 1);
  return bytes;
}

function report(type: "E" | "N", code: string, text: string): Buffer {
  return message(type, `VWARNING\0C${code}\0M${text}\0\0`);
}

/** The kind of error by which a stream ends that is sent this, or `none`. */
async function endOf(sent: Buffer): Promise<string> {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const client = { connection: { stream: socket, query() {} } } as unknown as Client;
  const stream = new WalsenderStream(client, {
    doing: "read the slot",
    startLsn: ZERO_LSN,
    flushLsn: ZERO_LSN,
  });
  socket.push(COPY_BOTH);
  await stream.start("START_REPLICATION", 10_000);
  socket.push(sent);
  socket.push(message("d", `k${"\0".repeat(17)}`));
  try {
    await stream.read();
    return "none";
  } catch (thrown) {
    return toMmliteError(thrown).kind;
  } finally {
    socket.destroy();
  }
}

Deno.test("what took the slot's basis away is known by its SQLSTATE, in any language", async () => {
  assert.equal(await endOf(report("E", "58P01", "das WAL-Segment wurde schon entfernt")), "slot_lost");
  assert.equal(await endOf(report("E", "42704", "Publikation existiert nicht")), "slot_lost");
  assert.equal(await endOf(report("N", "55000", "Laden der Publikation wird ausgelassen")), "slot_lost");
});

Deno.test("another warning does not end the stream", async () => {
  const sent = report(
    "N",
    "55000",
    'slot "s" in parameter "synchronized_standby_slots" does not have active_pid',
  );
  assert.equal(await endOf(sent), "none");
});
