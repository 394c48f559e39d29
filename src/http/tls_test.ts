/** TLS between two ends over real sockets: who they are, and what new certificates change. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { TestAuthority, TestKeys } from "../../tests/support/certificates.ts";
import { drain, echo, NEVER, openPort, PEER, rejectsWith } from "../../tests/support/peer_ports.ts";
import { within } from "../../tests/support/poll.ts";
import type { Channel } from "../wire/channel.ts";
import { PeerDialler } from "./peer_dialler.ts";

/** Two nodes of one cluster, "a" that dials and "b" that listens, and the channels that "b" has taken. */
async function openPair() {
  const authority = await TestAuthority.create();
  const [a, b] = [await TestKeys.create(authority, "a"), await TestKeys.create(authority, "b")];
  const accepted: Channel[] = [];
  const port = await openPort(async (channel) => {
    accepted.push(channel);
    await echo(channel);
  }, { tls: b });
  const diallers: PeerDialler[] = [];
  const connect = (tls: TestKeys = a) => {
    const dialler = new PeerDialler({ tls, self: "a" });
    diallers.push(dialler);
    return dialler.dial(port.url, { peer: PEER, path: "push", signal: NEVER });
  };
  return {
    authority,
    a,
    b,
    accepted,
    port,
    connect,
    async [Symbol.asyncDispose]() {
      for (const dialler of diallers) dialler.close();
      await port.close();
    },
  };
}

async function assertEchoes(channel: Channel): Promise<void> {
  await channel.write(new Uint8Array(1000));
  await channel.end();
  assert.equal(await within("the echo", 5000, drain(channel)), 1000);
}

async function assertCarries(channel: Channel, bytes = 1000): Promise<void> {
  await channel.write(new Uint8Array(bytes));
  let total = 0;
  const chunks = channel.incoming[Symbol.asyncIterator]();
  while (total < bytes) total += (await within("the echo", 5000, chunks.next())).value?.length ?? NaN;
  assert.equal(total, bytes);
}

Deno.test("both ends of a connection know who the other is", async () => {
  await using pair = await openPair();
  const channel = await pair.connect();
  const provenBy = ({ current }: TestKeys) => ({
    ...current.name,
    expiresAt: new Date(new X509Certificate(current.certificate).validTo),
  });
  assert.deepEqual(channel.peer, provenBy(pair.b));
  await assertEchoes(channel);
  assert.deepEqual(pair.accepted[0].peer, provenBy(pair.a));
});

Deno.test("a host name is dialled like an address: who it is the certificate says", async () => {
  await using pair = await openPair();
  pair.port.url.hostname = "localhost";
  await assertEchoes(await pair.connect());
});

Deno.test("a certificate between the node's and the CA's comes along with the node's", async () => {
  await using pair = await openPair();
  const between = await pair.authority.createIntermediate();
  for (const keys of [pair.a, pair.b]) {
    const issued = await between.issueNode(keys.current.name.node);
    keys.change({ ...issued, certificate: `${issued.certificate}\n${between.certificate}` });
  }
  await assertEchoes(await pair.connect());
});

Deno.test("new certificates leave what is connected alone, and whoever connects next sees them", async () => {
  await using pair = await openPair();
  const { a, b, authority } = pair;
  const channel = await pair.connect();
  a.change(await authority.issueNode("a"));
  b.change(await authority.issueNode("b"));
  await assertCarries(channel);
  a.change({ ...await authority.issueNode("a"), authorities: [authority.certificate] });
  await assertEchoes(await pair.connect());
  b.change(await authority.issueNode("c"));
  await rejectsWith(pair.connect(), "untrusted", /is for node "c", not for "b"$/, /add the peer as "c"/);
});

Deno.test("a CA that is trusted no more takes its connections with it, at either end, and no others", async () => {
  await using pair = await openPair();
  const { a, b, authority } = pair;
  const next = await TestAuthority.create("next CA");
  const both = [authority.certificate, next.certificate];
  a.change({ authorities: both });
  b.change({ authorities: both });
  const old = await pair.connect();
  const renewed = new TestKeys({
    ...await next.issueNode("a"),
    authorities: both,
    name: { cluster: "mmlite", node: "a" },
  });
  const kept = await pair.connect(renewed);
  await assertCarries(kept);
  b.change({ authorities: [next.certificate] });
  await rejectsWith(drain(old), "unreachable", /^Cannot read from/);
  const accepted = pair.accepted.find(({ remote }) => remote !== pair.accepted[1].remote)!;
  await rejectsWith(accepted.end(), "untrusted", /certificate of node "a" is not good any more$/);
  await rejectsWith(pair.connect(), "untrusted", /its CA did not sign$/, /same CA file/);
  b.change(await next.issueNode("b"));
  await assertEchoes(await pair.connect(renewed));
  // The connection was made while "b" showed its older certificate.
  renewed.change({ authorities: [next.certificate] });
  await rejectsWith(drain(kept), "untrusted", /certificate of node "b" is not good any more$/);
});

Deno.test("more connections than there may be at a time, good and bad, leave the port as it was", async () => {
  await using pair = await openPair();
  const stranger = new TestKeys({
    ...await (await TestAuthority.create()).issueNode("a"),
    authorities: pair.a.current.authorities,
    name: { cluster: "mmlite", node: "a" },
  });
  for (let round = 0; round < 30; round++) {
    await Promise.all(Array.from({ length: 5 }, async () => {
      (await pair.connect()).destroy();
      await rejectsWith(pair.connect(stranger), "untrusted", /its CA did not sign$/);
    }));
  }
  await assertEchoes(await pair.connect());
});

const MIB = 0x10_0000;
const PIECE = crypto.getRandomValues(new Uint8Array(60_000));

/** Pushes 32 MiB and reads what comes back to its end. */
async function pushMuch(channel: Channel): Promise<void> {
  const acks = drain(channel);
  for (let sent = 0; sent < 32 * MIB; sent += PIECE.length) await channel.write(PIECE);
  await channel.end();
  await acks;
}

/** Reads slowly, and answers each 100 kB with an ack's worth of bytes; fails unless all is what was pushed. */
async function readSlowly(channel: Channel): Promise<void> {
  let total = 0;
  let answered = 0;
  for await (const chunk of channel.incoming) {
    for (let at = 0; at < chunk.length; at += 1000) {
      assert.equal(chunk[at], PIECE[(total + at) % PIECE.length]);
    }
    total += chunk.length;
    if (total - answered < 100_000) continue;
    answered = total;
    await channel.write(new Uint8Array(13));
    await new Promise((resolve) => setTimeout(resolve, answered % 7));
  }
  assert(total >= 32 * MIB);
  await channel.end();
}

Deno.test("both directions of one connection carry everything, however slowly it is read", async () => {
  const authority = await TestAuthority.create();
  const done: Promise<void>[] = [];
  const track = (work: Promise<void>) => (done.push(work), work);
  const port = await openPort((channel) => track(readSlowly(channel)), {
    tls: await TestKeys.create(authority, "b"),
    acceptReturn: (channel) => track(pushMuch(channel)),
  });
  const dialler = new PeerDialler({ tls: await TestKeys.create(authority, "a"), self: "a" });
  const dial = (path: "push" | "return") => dialler.dial(port.url, { peer: PEER, path, signal: NEVER });
  const [push, back] = await Promise.all([dial("push"), dial("return")]);
  await within("all of it", 120_000, Promise.all([pushMuch(push), readSlowly(back), ...done]));
  dialler.close();
  await port.close();
});
