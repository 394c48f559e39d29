/**
 * Servers that all seeds share, each started when a seed first needs it. A seed makes databases of its own on them.
 */
import type { PostgresMajor } from "../../tests/support/postgres_packages.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";

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
  const skewed = skewMs !== 0;
  return await startPostgres({
    major,
    enter: skewed
      ? ["env", ...Object.entries(skewEnvironment(faketime!, skewMs)).map((e) => e.join("="))]
      : [],
    settings: {
      listen_addresses: "127.0.0.1",
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

/** The environment under which a program sees another time. */
export function skewEnvironment(faketime: string, skewMs: number): Record<string, string> {
  return {
    LD_PRELOAD: faketime,
    FAKETIME: `${skewMs < 0 ? "-" : "+"}${(Math.abs(skewMs) / 1000).toFixed(3)}`,
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    DONT_FAKE_MONOTONIC: "1",
    FAKETIME_DISABLE_SHM: "1",
  };
}
