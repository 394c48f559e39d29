import assert from "node:assert/strict";
import { type ChannelPair, memoryPair, takeEnd } from "../../tests/support/channel_pair.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import type { Channel } from "../wire/channel.ts";
import { ReturnStreams } from "./return_streams.ts";

const never = new AbortController().signal;

/** The streams of a node that knows `edge`, which it cannot dial, and `fra`, which it can. */
function openStreams() {
  const urls: Record<string, string | null> = { edge: null, fra: "http://fra.example:7432" };
  const streams = new ReturnStreams({ self: "ams", urlOf: (peer) => urls[peer] });
  return {
    streams,
    /** What the server does for a peer that opens a stream; `proven` as under TLS. */
    open(peer: string, { proven = false } = {}) {
      const pair: ChannelPair = memoryPair();
      const accepting: Channel = proven ? provenAs(peer, pair.accepting) : pair.accepting;
      return { dialler: takeEnd(pair.dialling), over: streams.offer(peer, accepting) };
    },
  };
}

function provenAs(node: string, channel: Channel): Channel {
  const { remote, incoming } = channel;
  return {
    remote,
    incoming,
    peer: { cluster: "eu", node, expiresAt: new Date(0) },
    write: (bytes) => channel.write(bytes),
    end: () => channel.end(),
    destroy: (reason) => channel.destroy(reason),
  };
}

const BEAT = { kind: "heartbeat", sentAt: 1n } as const;

Deno.test("a stream waits for the link of its peer, and a link for a stream", async () => {
  const { streams, open } = openStreams();
  const early = open("edge");
  const first = await streams.take("edge", never);
  await takeEnd(first).say(BEAT);
  await early.dialler.hear("heartbeat");
  first.destroy();
  await within("the stream to be over", 5_000, early.over);
  const taken = streams.take("edge", never);
  const late = open("edge");
  await takeEnd(await taken).say(BEAT);
  await late.dialler.hear("heartbeat");
});

Deno.test("a link that waits is stopped by its signal", async () => {
  const { streams } = openStreams();
  const stop = new AbortController();
  const taken = streams.take("edge", stop.signal);
  stop.abort();
  await within("the link to stop", 5_000, assert.rejects(taken, { kind: "aborted" }));
  await assert.rejects(streams.take("edge", stop.signal), { kind: "aborted" });
});

Deno.test("of the streams that wait the newest is the one that is used", async () => {
  const { streams, open } = openStreams();
  const older = open("edge");
  const newer = open("edge");
  await within("the older to be over", 5_000, older.over);
  await takeEnd(await streams.take("edge", never)).say(BEAT);
  await newer.dialler.hear("heartbeat");
});

Deno.test("a stream of a peer that is proven ends the older one of that peer, on cleartext it waits", async () => {
  for (const proven of [false, true]) {
    const { streams, open } = openStreams();
    const older = open("edge", { proven });
    const used = takeEnd(await streams.take("edge", never));
    const newer = open("edge", { proven });
    if (proven) {
      await within("the older to be over", 5_000, older.over);
      // Not as if the peer were gone: its connection, which the newer stream may be on, stays.
      await assert.rejects(used.hear("ack"), { kind: "transient" });
    } else {
      await used.say(BEAT);
      await older.dialler.hear("heartbeat");
      used.channel.destroy();
    }
    await takeEnd(await streams.take("edge", never)).say(BEAT);
    await newer.dialler.hear("heartbeat");
  }
});

Deno.test("who is dialled, or not known, is refused with the reason", async () => {
  const { open } = openStreams();
  const refusals: [peer: string, why: RegExp][] = [
    ["fra", /^Peer refused: Cannot push to node "fra" over its own connection: "ams" dials it$/],
    ["lon", /^Peer refused: Cannot push to node "lon".*: it is not registered on "ams"$/],
  ];
  for (const [peer, why] of refusals) {
    const { dialler, over } = open(peer);
    await over;
    await assert.rejects(dialler.hear("hello"), (error) => {
      assert(error instanceof MmliteError && error.kind === "refused", String(error));
      assert.match(error.message, why);
      return true;
    });
  }
});

Deno.test("what a peer has opened ends when it is dropped, and all of it when the node closes", async () => {
  const { streams, open } = openStreams();
  const used = open("edge");
  await streams.take("edge", never);
  const waiting = open("edge");
  streams.drop("edge");
  await within("both to be over", 5_000, Promise.all([used.over, waiting.over]));
  const last = open("edge");
  streams.close();
  await within("the last to be over", 5_000, last.over);
  await within("a later one to be over", 5_000, open("edge").over);
});

Deno.test("a peer hears heartbeats while its stream waits", async () => {
  const { open } = openStreams();
  const { dialler } = open("edge");
  await eventually("a heartbeat", () => dialler.hear("heartbeat"));
});
