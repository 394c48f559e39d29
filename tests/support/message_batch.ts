/**
 * Messages one by one <-> the structures that carry them without an object each.
 */
import { MessageBatch } from "../../src/pgoutput/message_batch.ts";
import type { Data } from "../../src/wire/frame.ts";
import { MessageCursor } from "../../src/wire/message_cursor.ts";

/** A batch of these messages. */
export function batchOf(messages: Iterable<Uint8Array>): MessageBatch {
  const batch = new MessageBatch();
  for (const message of messages) batch.add(message);
  return batch;
}

/** The messages of a batch, as views. */
export function messagesOf(batch: MessageBatch): Uint8Array[] {
  return Array.from(
    { length: batch.length },
    (_, index) => batch.bytes(index).subarray(batch.start(index), batch.end(index)),
  );
}

/** A data frame of these messages, at least one. */
export function dataFrame(...messages: Uint8Array[]): Data {
  const payload = new Uint8Array(messages.reduce((sum, { length }) => sum + 4 + length, 0));
  const view = new DataView(payload.buffer);
  let at = 0;
  for (const message of messages) {
    view.setUint32(at, message.length);
    payload.set(message, at + 4);
    at += 4 + message.length;
  }
  return { kind: "data", payload };
}

/** The messages of a data frame, as views. */
export function messagesIn({ payload }: Data): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (const cursor = new MessageCursor(payload); cursor.next();) {
    messages.push(payload.subarray(cursor.start, cursor.end));
  }
  return messages;
}
