/**
 * A TCP proxy between two nodes that a test can cut: at once with an RST, or silently, as a NAT does that has
 * forgotten a connection.
 */
import { once } from "node:events";
import net from "node:net";

/** A proxy to one address; see the module. */
export interface CutProxy extends AsyncDisposable {
  readonly url: string;
  /** Connections taken since it was started. */
  readonly connections: number;
  /** Breaks every connection; how many there were. */
  cut(): number;
  /** From now on nothing passes on the connections that there are, and nobody is told. */
  stall(): void;
  /** Takes no connections (`false`), or takes them again (`true`). */
  open(on: boolean): void;
}

/** Starts a proxy on a free port of 127.0.0.1 to the host and port of `url`. */
export async function startCutProxy(url: string): Promise<CutProxy> {
  const { hostname: host, port, protocol } = new URL(url);
  const pairs = new Set<[net.Socket, net.Socket]>();
  let connections = 0;
  let isOpen = true;
  const server = net.createServer((incoming) => {
    incoming.on("error", () => {});
    if (!isOpen) return incoming.resetAndDestroy();
    connections++;
    const outgoing = net.connect({ host, port: Number(port) });
    const pair: [net.Socket, net.Socket] = [incoming, outgoing];
    pairs.add(pair);
    for (const [from, to] of [pair, [outgoing, incoming]]) {
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        pairs.delete(pair);
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => {
    const count = pairs.size;
    for (const socket of [...pairs].flat()) socket.destroyed || socket.resetAndDestroy();
    return count;
  };
  return {
    url: `${protocol}//127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    get connections() {
      return connections;
    },
    cut,
    stall() {
      for (const socket of [...pairs].flat()) socket.unpipe().pause();
    },
    open: (on) => void (isOpen = on),
    async [Symbol.asyncDispose]() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
