import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { findDocker, removeLeftovers } from "./docker_socket.ts";

/** A daemon that answers as scripted, and notes what it was asked. */
async function startDaemon(answers: Readonly<Record<string, unknown>>) {
  const directory = await Deno.makeTempDir();
  const socket = join(directory, "docker.sock");
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const line = `${request.method} ${request.url!.split("?")[0].replace("/v1.41", "")}`;
    asked.push(line);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answers[line] ?? {}));
  });
  await once(server.listen(socket), "listening");
  const close = async () => {
    server.close();
    await once(server, "close");
    await Deno.remove(directory, { recursive: true });
  };
  return { socket, asked, [Symbol.asyncDispose]: close };
}

Deno.test("a daemon is found where DOCKER_HOST says, if it answers", async () => {
  await using daemon = await startDaemon({});
  assert.deepEqual(await findDocker({ DOCKER_HOST: `unix://${daemon.socket}` }), { socket: daemon.socket });
  assert.match(
    missing(await findDocker({ DOCKER_HOST: `unix://${daemon.socket}x` })),
    /docker\.sockx: .*ENOENT/,
  );
  assert.match(missing(await findDocker({ DOCKER_HOST: "tcp://docker:2375" })), /is no unix socket/);
});

Deno.test("what a run leaves is removed, containers before what they use", async () => {
  await using daemon = await startDaemon({
    "GET /containers/json": [{ Id: "c1" }, { Id: "c2" }],
    "GET /networks": [{ Id: "n" }],
    "GET /volumes": { Volumes: [{ Name: "v" }] },
    "GET /images/json": [{ Id: "i" }],
  });
  await removeLeftovers(daemon.socket, "run");
  assert.deepEqual(daemon.asked.filter((line) => line.startsWith("DELETE")), [
    "DELETE /containers/c1",
    "DELETE /containers/c2",
    "DELETE /networks/n",
    "DELETE /volumes/v",
    "DELETE /images/i",
  ]);
});

function missing(found: Awaited<ReturnType<typeof findDocker>>): string {
  assert("missing" in found);
  return found.missing;
}
