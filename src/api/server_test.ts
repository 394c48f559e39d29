import assert from "node:assert/strict";
import { once } from "node:events";
import { lstat, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MmliteError } from "../errors.ts";
import { httpRequest } from "../../tests/support/http_request.ts";
import { createTestControl } from "../../tests/support/test_control.ts";
import { type Api, createApi } from "./app.ts";
import { serveApi } from "./server.ts";

const LOOPBACK = { host: "127.0.0.1", port: 0 };

function testApi(token?: string): Api {
  return createApi({ control: createTestControl(), version: "1", address: LOOPBACK, token });
}

async function inScratch(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "mmlite-api-"));
  try {
    await test(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function listenOnce(where: { path: string } | { host: string; port: number }): Promise<Server> {
  const server = createServer((socket) => socket.end());
  server.listen(where);
  await once(server, "listening");
  return server;
}

/** Checks that an error names the place, and has a remedy. */
function isConfigError(where: string, why: RegExp): (error: MmliteError) => true {
  return (error) => {
    assert.ok(error instanceof MmliteError);
    assert.equal(error.kind, "config");
    assert.ok(error.message.startsWith(`Cannot serve the control API on "${where}": `), error.message);
    assert.match(error.message, why);
    assert.match(error.hint, /--api/);
    return true;
  };
}

Deno.test("the API answers on TCP and on its unix socket at once", async () => {
  await inScratch(async (directory) => {
    const socketPath = join(directory, "api.sock");
    const server = await serveApi({ api: testApi("secret"), address: LOOPBACK, socketPath });
    const port = server.address!.port;
    assert.equal((await httpRequest({ to: { port }, path: "/v1/peers" })).status, 401);
    // The socket's mode is its guard: neither token nor Host nor Origin matter there.
    const headers = { host: "anything.example", origin: "https://evil.example" };
    assert.equal((await httpRequest({ to: { socketPath }, path: "/v1/peers", headers })).status, 200);
    await server.close();
    await assert.rejects(httpRequest({ to: { port }, path: "/livez" }));
    await assert.rejects(lstat(socketPath));
  });
});

Deno.test("the unix socket is closed to other users, or has the mode asked for", async () => {
  await inScratch(async (directory) => {
    for (const [socketMode, expected] of [[undefined, 0o660], [0o600, 0o600]] as const) {
      const socketPath = join(directory, "api.sock");
      const server = await serveApi({ api: testApi(), socketPath, socketMode });
      assert.equal((await lstat(socketPath)).mode & 0o777, expected);
      assert.equal(server.address, null);
      await server.close();
    }
  });
});

Deno.test("the socket of a dead process is replaced", async () => {
  await inScratch(async (directory) => {
    const socketPath = join(directory, "api.sock");
    await leaveStaleSocket(socketPath);
    const server = await serveApi({ api: testApi(), socketPath });
    assert.equal((await httpRequest({ to: { socketPath }, path: "/livez" })).status, 200);
    await server.close();
  });
});

/** Leaves a socket file behind that nobody listens on, as a killed process does. */
async function leaveStaleSocket(path: string): Promise<void> {
  const code = `Deno.listen({ transport: "unix", path: ${
    JSON.stringify(path)
  } }); Deno.kill(Deno.pid, "SIGKILL");`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", code], stderr: "null" }).output();
  assert.ok((await lstat(path)).isSocket());
}

Deno.test("the socket of a live process is left alone", async () => {
  await inScratch(async (directory) => {
    const path = join(directory, "api.sock");
    const other = await listenOnce({ path });
    const refused = serveApi({ api: testApi(), address: LOOPBACK, socketPath: path });
    await assert.rejects(refused, isConfigError(path, /another process listens/));
    const socket = connect(path);
    await once(socket, "connect");
    socket.destroy();
    other.close();
  });
});

Deno.test("a socket path that cannot be had is named with its remedy", async () => {
  await inScratch(async (directory) => {
    const file = join(directory, "file");
    await writeFile(file, "precious");
    await assert.rejects(serveApi({ api: testApi(), socketPath: file }), isConfigError(file, /not a socket/));
    assert.equal((await lstat(file)).size, "precious".length);
    const missing = join(directory, "none", "api.sock");
    await assert.rejects(
      serveApi({ api: testApi(), socketPath: missing }),
      isConfigError(missing, /directory/),
    );
    const long = join(directory, "x".repeat(120));
    await assert.rejects(serveApi({ api: testApi(), socketPath: long }), isConfigError(long, /too long/));
  });
});

Deno.test("a port in use and an address of another machine are named with their remedy", async () => {
  const other = await listenOnce(LOOPBACK);
  const { port } = other.address() as { port: number };
  const inUse = serveApi({ api: testApi(), address: { host: "127.0.0.1", port } });
  await assert.rejects(inUse, isConfigError(`127.0.0.1:${port}`, /in use/));
  other.close();
  const foreign = serveApi({ api: testApi(), address: { host: "203.0.113.1", port: 0 } });
  await assert.rejects(foreign, isConfigError("203.0.113.1:0", /does not have that address/));
  const unknown = serveApi({ api: testApi(), address: { host: "no-such-host.invalid", port: 0 } });
  await assert.rejects(unknown, isConfigError("no-such-host.invalid:0", /no such host/));
});

Deno.test("closing ends kept connections at once and lets an answer under way end", async () => {
  const asked = Promise.withResolvers<void>();
  const allowed = Promise.withResolvers<void>();
  const slow: Api = async (request) => {
    if (request.url.endsWith("/slow")) {
      asked.resolve();
      await allowed.promise;
    }
    return new Response("done");
  };
  const server = await serveApi({ api: slow, address: LOOPBACK });
  const unused = await dial(server.address!.port);
  const kept = await dial(server.address!.port);
  kept.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await once(kept, "data");
  const underWay = httpRequest({ to: { port: server.address!.port }, path: "/slow" });
  await asked.promise;
  const ended = Promise.all([once(kept, "close"), once(unused, "close")]);
  const closed = server.close();
  await ended;
  allowed.resolve();
  assert.equal((await underWay).text, "done");
  await closed;
});

async function dial(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket.resume();
}

Deno.test("an abort closes the server, also one that came first", async () => {
  const stop = new AbortController();
  const server = await serveApi({ api: testApi(), address: LOOPBACK, signal: stop.signal });
  stop.abort();
  await server.close();
  const late = await serveApi({ api: testApi(), address: LOOPBACK, signal: stop.signal });
  await assert.rejects(dial(late.address!.port));
});

Deno.test("a header that is too long or no HTTP gets a 4xx and a closed connection", async () => {
  const server = await serveApi({ api: testApi(), address: LOOPBACK });
  const long = `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`;
  for (const [sent, status] of [[long, /^HTTP\/1.1 431 /], ["\0\r\n\r\n", /^HTTP\/1.1 400 /]] as const) {
    const socket = connect(server.address!.port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk) => text += chunk);
    socket.write(sent);
    await once(socket, "close");
    assert.match(text, status);
  }
  await server.close();
});
