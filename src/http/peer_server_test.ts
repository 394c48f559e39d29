/** The peer port over real sockets: what it answers, and how it closes. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { TestAuthority, TestKeys } from "../../tests/support/certificates.ts";
import { dial, echo, openPort, rejectsWith } from "../../tests/support/peer_ports.ts";
import { eventually } from "../../tests/support/poll.ts";
import { FRAME_PATHS } from "./session_options.ts";

Deno.test("a port in use is a configuration error that names it", async () => {
  const server = await openPort(echo);
  // With TLS: what watches over certificates must not outlive the refusal.
  const tls = await TestKeys.create(await TestAuthority.create(), "a");
  const second = openPort(echo, { port: server.address.port, tls });
  await rejectsWith(
    second,
    "config",
    new RegExp(`on 127.0.0.1:${server.address.port}: another process listens`),
  );
  await server.close();
});

Deno.test("whoever speaks HTTP/1 reads a sentence", async () => {
  const server = await openPort(echo);
  const socket = net.connect(server.address.port, "127.0.0.1");
  // Byte by byte, as nothing promises more.
  socket.setNoDelay(true);
  for (const byte of "GET / HTTP/1.1\r\nhost: x\r\n\r\n") socket.write(byte);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "close");
  assert.match(String(Buffer.concat(chunks)), /^HTTP\/1\.1 400 [^]*This is mmlite's peer port/);
  await server.close();
});

Deno.test("another method is answered 405", async () => {
  const server = await openPort(echo);
  const session = http2.connect(server.url);
  const stream = session.request({ ":method": "GET", ":path": FRAME_PATHS.push });
  const [headers] = await once(stream, "response");
  assert.equal(headers[":status"], 405);
  assert.equal(headers.allow, "POST");
  stream.resume();
  await once(stream, "close");
  await new Promise<void>((resolve) => session.close(resolve));
  await server.close();
});

Deno.test("a signal that aborts closes the server", async () => {
  const stop = new AbortController();
  const server = await openPort(echo, { signal: stop.signal });
  stop.abort();
  const isClosed = () =>
    dial(server.url).then((channel) => {
      channel.destroy();
      return false;
    }, () => true);
  await eventually("the port to be closed", isClosed);
  await server.close();
});
