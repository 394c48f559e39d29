/** Dialling over real sockets: why a peer cannot be reached. */
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import type net from "node:net";
import { Buffer } from "node:buffer";
import { dial, rejectsWith, tcpServer } from "../../tests/support/peer_ports.ts";

Deno.test("dialling says why a peer cannot be reached", async (t) => {
  const dialUrl = (url: URL, connectTimeoutMs = 5000) => dial(url, { connectTimeoutMs });
  await t.step("nothing listens", async () => {
    const { url } = await (async () => {
      await using server = await tcpServer(() => {});
      return server;
    })();
    await rejectsWith(
      dialUrl(url),
      "unreachable",
      /^Cannot reach the peer at 127\.0\.0\.1:\d+: .*ECONNREFUSED/,
    );
  });
  await t.step("the name is unknown", async () => {
    await rejectsWith(dialUrl(new URL("http://no-such-host.invalid:7432")), "unreachable", /ENOTFOUND/);
  });
  await t.step("garbage answers", async () => {
    await using server = await tcpServer((socket) => socket.end(Buffer.alloc(1000, "garbage")));
    await rejectsWith(dialUrl(server.url), "unreachable", /127\.0\.0\.1:\d+: /);
  });
  await t.step("an HTTP/1 server answers", async () => {
    const server = http.createServer((_, response) => response.end("hello"));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    await rejectsWith(dialUrl(url), "unreachable", /127\.0\.0\.1:\d+: /);
    await new Promise((resolve) => server.close(resolve));
  });
  await t.step("nobody answers", async () => {
    await using server = await tcpServer(() => {});
    await rejectsWith(dialUrl(server.url, 100), "unreachable", /no answer within 100 ms/);
  });
  await t.step("the dialler stops", async () => {
    await using server = await tcpServer(() => {});
    const stop = new AbortController();
    const dialling = dial(server.url, { signal: stop.signal });
    stop.abort();
    await rejectsWith(dialling, "aborted", /^Cannot reach the peer at 127.*: stopped$/);
  });
  await t.step("the path is not there", async () => {
    const server = http2.createServer();
    server.on("stream", (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ":status": 404 });
      stream.end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    await rejectsWith(dialUrl(url), "unreachable", /it answered status 404/);
    await new Promise((resolve) => server.close(resolve));
  });
});
