/** The routes of nodes that join, over real sockets: what they answer to whom, and what they never do. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { TestAuthority, TestKeys } from "../../tests/support/certificates.ts";
import { drain, NEVER, openPort, PEER, rejectsWith } from "../../tests/support/peer_ports.ts";
import { eventually } from "../../tests/support/poll.ts";
import {
  connectRaw,
  dataFrames,
  END_STREAM,
  opening,
  rawFrame,
  request,
  TYPE,
} from "../../tests/support/raw_http2.ts";
import { MmliteError } from "../errors.ts";
import { readAuthority, requestJoin } from "./join_client.ts";
import { JOIN_PATH, MAX_JOIN_BYTES } from "./join_routes.ts";
import { FRAME_PATHS } from "./session_options.ts";

/** A member that answers `join` with what the test gives, and counts the streams of frames that it takes. */
async function openMember(join: (body: unknown) => Promise<unknown>) {
  const authority = await TestAuthority.create();
  const member = { isOpen: true, taken: 0 };
  const port = await openPort(async (channel) => {
    member.taken++;
    await drain(channel);
  }, {
    tls: await TestKeys.create(authority, PEER.node),
    join: { isOpen: () => member.isOpen, ca: () => authority.certificate, join },
  });
  const ask = (body: unknown, asked = PEER) =>
    requestJoin(port.url, {
      material: { authorities: [authority.certificate] },
      peer: asked,
      body,
      signal: NEVER,
    });
  return { authority, member, port, ask, [Symbol.asyncDispose]: () => port.close() };
}

Deno.test("a node without a certificate reads the CA and joins while an invite is open, and only then", async () => {
  await using bed = await openMember((body) => Promise.resolve({ heard: body }));
  assert.equal(await readAuthority(bed.port.url, NEVER), bed.authority.certificate);
  assert.deepEqual(await bed.ask({ name: "c" }), { heard: { name: "c" } });
  bed.member.isOpen = false;
  await rejectsWith(readAuthority(bed.port.url, NEVER), "refused", /no invite is open there/);
  await rejectsWith(bed.ask({ name: "c" }), "refused", /no invite is open there/, /mmlite invite/);
});

Deno.test("a joining node hears why it may not, but not what went wrong inside", async () => {
  await using refusing = await openMember(() => {
    throw new MmliteError("conflict", 'Cannot join as "c": there is one', { hint: "Choose another name" });
  });
  await rejectsWith(
    refusing.ask({}),
    "conflict",
    /^Cannot join as "c": there is one$/,
    /^Choose another name$/,
  );
  await rejectsWith(refusing.ask("x".repeat(MAX_JOIN_BYTES)), "invalid_input", /longer than 65536 bytes$/);
  await using failing = await openMember(() => Promise.reject(new TypeError("secret of the inside")));
  await rejectsWith(failing.ask({}), "internal", /^Cannot answer this$/);
  await using denied = await openMember(() => {
    throw new MmliteError("permission", 'Cannot read invites of "app": role "ops" may not', {
      hint: "GRANT",
    });
  });
  await rejectsWith(denied.ask({}), "permission", /^Cannot answer this$/, /^(?!GRANT)/);
  const { certificate, key } = await denied.authority.issue({ uris: ["mmlite://mmlite/c"] });
  const asking = requestJoin(denied.port.url, {
    material: { authorities: [denied.authority.certificate], certificate, key },
    peer: PEER,
    body: {},
    signal: NEVER,
  });
  await rejectsWith(asking, "permission", /role "ops" may not$/, /^GRANT$/);
});

Deno.test("what a member says is shown in one line, and what an unproven server says not at all", async () => {
  await using bed = await openMember(() => {
    throw new MmliteError("conflict", "Cannot join\n\x1b[2Jerror: none", { hint: "Wait\u202e" });
  });
  await rejectsWith(bed.ask({}), "conflict", /^Cannot join {2}\[2Jerror: none$/, /^Wait $/);
  const { certificate, key } = await bed.authority.issue({ uris: ["mmlite://mmlite/b"] });
  const server = createSecureServer({ cert: certificate, key, minVersion: "TLSv1.3" });
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.respond({ ":status": 403 });
    stream.end(JSON.stringify({ kind: "refused", message: "Run rm", hint: "Do it" }));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  const reading = readAuthority(new URL(`https://127.0.0.1:${port}`), NEVER);
  await rejectsWith(reading, "unreachable", /it answered status 403$/, /not its control API/);
  server.close();
});

Deno.test("a joining node sends nothing to anybody but the member that invited it", async () => {
  const heard: unknown[] = [];
  await using bed = await openMember((body) => Promise.resolve(heard.push(body)));
  await rejectsWith(
    bed.ask({}, { cluster: "mmlite", node: "c" }),
    "untrusted",
    /is for node "b", not for "c"$/,
  );
  await using impostor = await openMember((body) => Promise.resolve(heard.push(body)));
  const asking = requestJoin(impostor.port.url, {
    material: { authorities: [bed.authority.certificate] },
    peer: PEER,
    body: {},
    signal: NEVER,
  });
  await rejectsWith(asking, "untrusted", /this node's CA did not sign its certificate$/);
  assert.deepEqual(heard, []);
});

const json = (body: Uint8Array | string) =>
  Buffer.concat([
    opening(),
    request(1, { path: JOIN_PATH }),
    dataFrames(1, Buffer.from(body)),
    rawFrame(TYPE.data, END_STREAM, 1),
  ]);

const ANSWERS: [name: string, bytes: Buffer, answer: RegExp][] = [
  ["a body that is not JSON", json('{"name":'), /"invalid_input".*not JSON/],
  ["a body that is not text", json(Uint8Array.of(0xff, 0xfe, 0x22)), /"invalid_input".*not JSON/],
  ["frames", Buffer.concat([opening(), request(1, { path: FRAME_PATHS.push })]), /"not_found".*no such path/],
  ["another path", Buffer.concat([opening(), request(1, { path: "/", method: "GET" })]), /"not_found"/],
];

for (const [name, bytes, answer] of ANSWERS) {
  Deno.test(`a node without a certificate that sends ${name} gets a problem, and no more`, async () => {
    let calls = 0;
    await using bed = await openMember(() => Promise.resolve(++calls));
    const connection = await connectRaw(bed.port.address.port, {});
    connection.socket.write(bytes);
    await eventually("the answer", () => answer.test(connection.received().toString("latin1")), {
      intervalMs: 10,
    });
    assert.deepEqual([calls, bed.member.taken], [0, 0]);
    connection.socket.destroy();
  });
}

Deno.test("a port without TLS has no routes for joining", async () => {
  const port = await openPort(() => Promise.resolve(), {
    join: { isOpen: () => true, ca: () => "", join: () => Promise.resolve({}) },
  });
  const connection = await connectRaw(port.address.port);
  connection.socket.write(json("{}"));
  await eventually("the answer", () => connection.received().includes("No such path"), { intervalMs: 10 });
  connection.socket.destroy();
  await port.close();
});
