/**
 * Servers that all seeds share, each started when a seed first needs it. A seed makes databases of its own on them.
 */
import type { PostgresMajor } from "../../tests/support/postgres_packages.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { skewEnvironment } from "./skew.ts";

/** Which server. */
export interface ServerWish {
  readonly major: PostgresMajor;
  /** Of several that are otherwise the same. */
  readonly copy: number;
  readonly skewMs: number;
}

/** The servers. */
export interface ServerPool extends AsyncDisposable {
  get(wish: ServerWish): Promise<PostgresServer>;
}

/** Makes an empty pool; `faketime` is the path of libfaketime, for skewed clocks. */
export function openServerPool(faketime: string | undefined): ServerPool {
  const stack = new AsyncDisposableStack();
  const servers = new Map<string, PostgresServer>();
  return {
    async get(wish) {
      const name = JSON.stringify(wish);
      let server = servers.get(name);
      if (server === undefined) {
        server = stack.use(await startServer(wish, faketime));
        servers.set(name, server);
      }
      await server.start();
      return server;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function startServer(
  { major, skewMs }: ServerWish,
  faketime: string | undefined,
): Promise<PostgresServer> {
  return await startPostgres({
    major,
    env: faketime === undefined ? {} : skewEnvironment(faketime, skewMs),
    settings: {
      // A killed process takes nothing with it that was written; only a machine that loses power would.
      fsync: "off",
      deadlock_timeout: "200ms",
      max_wal_senders: "30",
      max_replication_slots: "30",
      max_worker_processes: "20",
      max_logical_replication_workers: "16",
      wal_retrieve_retry_interval: "300ms",
    },
  });
}
