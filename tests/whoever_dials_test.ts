/** A link's session against an inbox, over one channel: neither can tell which of the two dialled. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Inbox } from "../src/inbox/inbox.ts";
import { runSession } from "../src/link/session.ts";
import { AppliedHistory } from "../src/applied_history.ts";
import { MmliteError } from "../src/errors.ts";
import { type Lsn, toLsn } from "../src/lsn.ts";
import type { Channel } from "../src/wire/channel.ts";
import { PROCESS_CLOCK } from "../src/wire/clock_exchange.ts";
import { type Compression, COMPRESSIONS } from "../src/wire/compression.ts";
import { type ChannelPair, httpPair, memoryPair } from "./support/channel_pair.ts";
import { eventually, within } from "./support/poll.ts";
import { hello, NOTHING_UNSENT, RECEIVER, TestSource } from "./support/session_parts.ts";

/** A link's session that pushes what its source yields. */
function push(channel: Channel, compression: Compression | null) {
  const source = new TestSource();
  const stop = new AbortController();
  const running = runSession(
    {
      prepare: () => Promise.resolve(),
      connect: () => Promise.resolve(channel),
      hello: () => Promise.resolve(hello({ compression: compression === null ? [] : [compression] })),
      recognise: () => Promise.resolve(),
      openSource: () => Promise.resolve(source),
      clock: PROCESS_CLOCK,
      history: new AppliedHistory(),
      readClock: () => Promise.resolve({ timestamp: 0n, walLsn: toLsn(1n << 60n) }),
      asksAgain: () => new Promise(() => {}),
      callsBack: () => new Promise(() => {}),
      readRow: () => Promise.resolve({ kind: "none", at: 0n }),
      storeAck: () => Promise.resolve(),
    },
    { started: () => {}, sent: () => {}, wrote: () => {}, acked: () => {}, clock: () => {} },
    stop.signal,
  );
  running.catch(() => {});
  return { source, running, stop: () => stop.abort() };
}

/** An inbox with one session, whose sink holds what it is given. */
function receive(channel: Channel, compression: Compression | null) {
  const received: Uint8Array[] = [];
  const opened = Promise.withResolvers<(endLsn: Lsn) => void>();
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  failed.catch(() => {});
  const inbox = new Inbox({
    clock: PROCESS_CLOCK,
    clockOf: () => {},
    recognise: () => Promise.resolve(),
    admit: () =>
      Promise.resolve({
        identity: RECEIVER,
        resumeLsn: toLsn(100n),
        copied: null,
        dialsBack: true,
        compression,
        policies: "",
        unsent: NOTHING_UNSENT,
        openSink: (onDurable) => {
          opened.resolve(onDurable);
          return Promise.resolve({
            push: (bytes, start, end) => void received.push(Buffer.from(bytes.slice(start, end))),
            seen: () => {},
            caughtUp: () => {},
            passed: () => {},
            fetched: () => Promise.resolve(),
            flush: () => {},
            close: () => Promise.resolve(),
            failed,
          });
        },
      }),
    askedAgain: () => {},
    calledBack: () => {},
    judge: (_, error) => Promise.resolve(error),
    observe: () => {},
  });
  return { received, fail, durable: opened.promise, over: inbox.accept(channel) };
}

const LONG = Buffer.alloc(3_000_000, "x");

async function exchanges(
  pusher: Channel,
  receiver: Channel,
  compression: Compression | null = null,
): Promise<void> {
  const pushing = push(pusher, compression);
  const receiving = receive(receiver, compression);
  const durable = await receiving.durable;
  pushing.source.put(200n, Buffer.from("begin"), LONG, Buffer.from("commit"));
  await eventually("every message", () => receiving.received.length === 3, { intervalMs: 5 });
  assert(
    Buffer.concat(receiving.received).equals(
      Buffer.concat([Buffer.from("begin"), LONG, Buffer.from("commit")]),
    ),
  );
  durable(toLsn(200n));
  await eventually("the ack at the slot", () => pushing.source.confirmed[0] === 200n, { intervalMs: 5 });
  pushing.stop();
  await within("both sessions to end", 10_000, Promise.all([pushing.running, receiving.over]));
}

async function refuses(pusher: Channel, receiver: Channel): Promise<void> {
  const pushing = push(pusher, null);
  const receiving = receive(receiver, null);
  await receiving.durable;
  receiving.fail(new MmliteError("schema_mismatch", 'Cannot apply insert to "public.t": no such table'));
  await within(
    "the pusher to hear why",
    10_000,
    assert.rejects(pushing.running, { kind: "schema_mismatch", message: /no such table/ }),
  );
  await within("the receiver to end", 10_000, receiving.over);
}

const PAIRS: Record<string, () => ChannelPair | Promise<ChannelPair>> = {
  "in memory": memoryPair,
  "over HTTP/2": httpPair,
};
for (const [where, open] of Object.entries(PAIRS)) {
  Deno.test(`a pusher that dialled reaches a receiver ${where}`, async () => {
    await using pair = await open();
    await exchanges(pair.dialling, pair.accepting);
  });

  Deno.test(`a pusher that was dialled reaches a receiver ${where}`, async () => {
    await using pair = await open();
    await exchanges(pair.accepting, pair.dialling);
  });

  for (const compression of COMPRESSIONS) {
    Deno.test(`a pusher reaches a receiver ${where} in ${compression}`, async () => {
      await using pair = await open();
      await exchanges(pair.dialling, pair.accepting, compression);
    });
  }

  Deno.test(`a receiver tells why it ends, whoever dialled, ${where}`, async () => {
    {
      await using pair = await open();
      await refuses(pair.dialling, pair.accepting);
    }
    await using pair = await open();
    await refuses(pair.accepting, pair.dialling);
  });
}
