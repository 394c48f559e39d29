/**
 * The Docker daemon of this machine: whether there is one, and removing what a run of tests has left there
 * (https://docs.docker.com/engine/api/v1.41/).
 */
import { join } from "node:path";
import { httpRequest, type TestResponse } from "../tests/support/http_request.ts";

/** Where a daemon answers, or why none does. */
export type Docker = { readonly socket: string } | { readonly missing: string };

/** What is listed and removed, in an order in which nothing is still in use. */
const KINDS = [
  { list: "/containers/json?all=1", key: "Id", path: "/containers", query: "?force=1&v=1" },
  { list: "/networks?", key: "Id", path: "/networks", query: "" },
  { list: "/volumes?", key: "Name", path: "/volumes", query: "" },
  { list: "/images/json?", key: "Id", path: "/images", query: "?force=1" },
] as const;

/** Looks where `DOCKER_HOST` says, else in the usual places, for a daemon that answers. */
export async function findDocker(env: Readonly<Record<string, string | undefined>>): Promise<Docker> {
  const host = env.DOCKER_HOST;
  if (host && !host.startsWith("unix://")) return { missing: `DOCKER_HOST ${host} is no unix socket` };
  const sockets = host ? [host.slice("unix://".length)] : [
    "/var/run/docker.sock",
    ...(env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, "docker.sock")] : []),
  ];
  const failures: string[] = [];
  for (const socket of sockets) {
    try {
      const { status } = await call(socket, "GET", "/_ping");
      if (status === 200) return { socket };
      failures.push(`${socket} answers ${status}`);
    } catch (thrown) {
      failures.push(`${socket}: ${(thrown as Error).message}`);
    }
  }
  return { missing: `no Docker daemon answers (${failures.join("; ")})` };
}

/** Removes whatever has the label `mmlite.test` of a run, or its name before the slash if it is an image. */
export async function removeLeftovers(socket: string, run: string): Promise<void> {
  for (const { list, key, path, query } of KINDS) {
    const filters = path === "/images" ? { reference: [`${run}/*`] } : { label: [`mmlite.test=${run}`] };
    const { json } = await call(
      socket,
      "GET",
      `${list}&filters=${encodeURIComponent(JSON.stringify(filters))}`,
    );
    for (const one of json?.Volumes ?? json ?? []) {
      const { status, text } = await call(socket, "DELETE", `${path}/${one[key]}${query}`);
      if (status >= 300 && status !== 404) console.error(`Cannot remove ${path}/${one[key]}: ${text.trim()}`);
    }
  }
}

function call(socketPath: string, method: string, path: string): Promise<TestResponse> {
  return httpRequest({ to: { socketPath }, method, path: `/v1.41${path}`, headers: { host: "docker" } });
}
