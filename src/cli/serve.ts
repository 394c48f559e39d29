/**
 * A node with its control API: the one place where the two meet.
 */
import process from "node:process";
import { createApi } from "../api/app.ts";
import type { NodeControl } from "../api/control.ts";
import { type ApiServer, serveApi } from "../api/server.ts";
import { formatAddress, NO_ADVERTISE } from "../config/address.ts";
import type { Config } from "../config.ts";
import { log } from "../log.ts";
import { type RunningNode, startNode } from "../node/node.ts";
import { VERSION } from "../version.ts";
import type { ServiceManager } from "./notify.ts";

interface ServeOptions {
  /** Ends the node in order. */
  readonly signal: AbortSignal;
  /** Hears when the node is ready, reloads and stops. */
  readonly service: ServiceManager;
}

/** Runs a node and its control API until the signal aborts; throws what makes it impossible to go on. */
export async function serveNode(config: Config, { signal, service }: ServeOptions): Promise<void> {
  let server: ApiServer | undefined;
  const apiAddress = () => server?.address ? formatAddress(server.address) : null;
  let node: RunningNode | undefined;
  const ready = (running: RunningNode) =>
    service.ready(`Node ${config.node.name} listens for peers on ${running.peerAddress}`);
  // From the beginning: a SIGHUP that nobody takes ends the process.
  const reload = () => void (server && node && reloadNode(node, service).then(ready));
  process.on("SIGHUP", reload);
  try {
    const running = node = await startNode(config, { signal, apiAddress });
    server = await serveControl(config, running.control);
    log("api").info("The control API listens on {address}", { address: apiAddress() });
    // Its outcome is that of `closed`.
    const close = () => void Promise.all([service.stopping(), running.close()]).catch(() => {});
    if (signal.aborted) close();
    else {
      signal.addEventListener("abort", close, { once: true });
      void ready(running);
    }
    await running.closed;
  } finally {
    process.off("SIGHUP", reload);
    await server?.close();
    await node?.close();
  }
}

async function reloadNode(node: RunningNode, service: ServiceManager): Promise<RunningNode> {
  await service.reloading();
  await node.reload();
  return node;
}

async function serveControl({ listen }: Config, control: NodeControl): Promise<ApiServer> {
  const { address, socket, token } = listen.api;
  const { advertise } = listen.peers;
  const api = createApi({
    control,
    version: VERSION,
    address,
    token: token ?? undefined,
    advertisedHosts: advertise === null || advertise === NO_ADVERTISE ? [] : [new URL(advertise).hostname],
  });
  return await serveApi({ api, address, socketPath: socket ?? undefined });
}
