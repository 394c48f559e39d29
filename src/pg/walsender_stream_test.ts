import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import { toMmliteError } from "../errors.ts";
import { ZERO_LSN } from "../lsn.ts";
import type { Client } from "./client.ts";
import type { Basin, DrawnSocket } from "./drawn_socket.ts";
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

Deno.test("the messages of a read stay as they came until the next one, though others come into the same memory", async () => {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const client = { connection: { stream: socket, query() {} } } as unknown as Client;
  let basin!: Basin;
  const drawn = { socket, drawInto: (into: Basin) => basin = into } as unknown as DrawnSocket;
  const stream = new WalsenderStream(client, {
    ...{ doing: "read the slot", startLsn: ZERO_LSN, flushLsn: ZERO_LSN, drawn },
  });
  const come = (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length;) {
      const room = basin.room();
      const length = Math.min(room.length, bytes.length - at);
      room.set(bytes.subarray(at, at + length));
      basin.took(length, length === room.length);
      at += length;
    }
  };
  const started = stream.start("START_REPLICATION", 10_000);
  come(COPY_BOTH);
  await started;
  const body = (round: number) => String.fromCharCode(65 + round % 26).repeat(50_000);
  const data = (round: number) => come(message("d", `w${"\0".repeat(24)}${body(round)}`));
  data(0);
  for (let round = 0; round < 60; round++) {
    const { messages } = await stream.read();
    // As much as several chunks hold.
    for (let i = 1; i <= 12; i++) data(12 * round + i);
    for (let i = 0; i < messages.length; i++) {
      const text = Buffer.from(messages.bytes(i)).toString("latin1", messages.start(i), messages.end(i));
      assert.equal(text, body(Math.max(0, 12 * (round - 1)) + (round === 0 ? 0 : i + 1)));
    }
    assert.equal(messages.length, round === 0 ? 1 : 12);
  }
  socket.destroy();
});
