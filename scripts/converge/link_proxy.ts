/**
 * A TCP proxy in one direction of a pair of nodes, whose delay can be set and which can be cut, closed or stalled.
 */
import { once } from "node:events";
import net from "node:net";

/** A proxy; see the module. */
export interface LinkProxy extends AsyncDisposable {
  readonly port: number;
  /** How long every chunk is held, milliseconds, in either direction of a connection. */
  delayMs: number;
  /** Breaks every connection with an RST. */
  cut(): void;
  /** Takes no connections (`false`), or takes them again (`true`). */
  open(on: boolean): void;
  /** Holds back everything (`true`), or lets what was held go on (`false`); nothing is lost. */
  stall(on: boolean): void;
}

/** Starts a proxy on a free port of 127.0.0.1 to a port of the same host. */
export async function startLinkProxy(target: () => number): Promise<LinkProxy> {
  const pipes = new Set<Pipe>();
  const state = { delayMs: 0, isOpen: true, isStalled: false };
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (incoming) => {
    incoming.on("error", () => {});
    if (!state.isOpen) return incoming.resetAndDestroy();
    const outgoing = net.connect({ host: "127.0.0.1", port: target(), noDelay: true, allowHalfOpen: true });
    for (const [from, to] of [[incoming, outgoing], [outgoing, incoming]]) {
      const pipe = new Pipe(from, to, state);
      pipes.add(pipe);
      from.once("close", () => pipes.delete(pipe));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => {
    for (const { from } of pipes) from.destroyed || from.resetAndDestroy();
  };
  return {
    port: (server.address() as net.AddressInfo).port,
    get delayMs() {
      return state.delayMs;
    },
    set delayMs(delayMs) {
      state.delayMs = delayMs;
    },
    cut,
    open: (on) => void (state.isOpen = on),
    stall(on) {
      state.isStalled = on;
      if (!on) { for (const pipe of pipes) pipe.flush(); }
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      cut();
      await closed;
    },
  };
}

/** Carries one direction of a connection, chunk by chunk, in order. */
class Pipe {
  readonly #held: { readonly dueAt: number; readonly chunk: Uint8Array | null }[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly from: net.Socket,
    readonly to: net.Socket,
    readonly state: { readonly delayMs: number; readonly isStalled: boolean },
  ) {
    from.on("data", (chunk: Uint8Array) => this.#hold(chunk));
    from.on("end", () => this.#hold(null));
    from.on("error", () => to.destroyed || to.resetAndDestroy());
    from.on("close", () => {
      if (from.readableEnded) return; // What is held still arrives, and the end after it.
      clearTimeout(this.#timer);
      to.destroy();
    });
  }

  #hold(chunk: Uint8Array | null): void {
    this.#held.push({ dueAt: performance.now() + this.state.delayMs, chunk });
    this.flush();
  }

  /** Sends on what is due, and comes back for the rest. */
  flush(): void {
    clearTimeout(this.#timer);
    if (this.state.isStalled) return;
    while (this.#held.length > 0) {
      const waitMs = this.#held[0].dueAt - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.flush(), waitMs);
        return;
      }
      const { chunk } = this.#held.shift()!;
      if (this.to.destroyed) return;
      if (chunk === null) this.to.end();
      else this.to.write(chunk);
    }
  }
}
