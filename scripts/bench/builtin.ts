/**
 * The subscription that is built into PostgreSQL, with its defaults, and `origin = none` as a multi-master
 * needs it.
 */
import { eventually } from "../../tests/support/poll.ts";
import { type Bed, PUBLICATION, type Run, SOURCE } from "./bed.ts";
import { serverTimes } from "./processor_time.ts";
import type { Link, Rival } from "./rival.ts";

/** The rival, over TCP as between two hosts, or over the unix socket, which it cannot use between hosts. */
export function builtinRival(
  { unixSocket, host = "127.0.0.1" }: { unixSocket: boolean; host?: string },
): Rival {
  return {
    name: unixSocket ? "builtin_unix" : "builtin",
    prepare: async ({ name, bed }) =>
      void await bed.publisher.sql(
        SOURCE,
        `SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`,
      ),
    attach: (run) => attach(run, conninfo(run.bed, unixSocket ? run.bed.publisher.host : host)),
  };
}

function conninfo({ publisher }: Bed, host: string): string {
  return `host=${host} port=${publisher.port} user=postgres dbname=${SOURCE}`;
}

async function attach({ name, bed }: Run, from: string): Promise<Link> {
  const { publisher, subscriber } = bed;
  await subscriber.sql(
    name,
    `CREATE SUBSCRIPTION ${name} CONNECTION '${from}' PUBLICATION ${PUBLICATION}
       WITH (slot_name = ${name}, create_slot = false, copy_data = false, enabled = false, origin = none)`,
  );
  const enable = (how: string) => subscriber.sql(name, `ALTER SUBSCRIPTION ${name} ${how}`);
  return {
    start: async () => void await enable("ENABLE"),
    processorTime: async () => ({ ...await serverTimes(bed), sender: 0, receiver: 0 }),
    peakMemory: () => null,
    async detach() {
      await enable("DISABLE");
      await enable("SET (slot_name = NONE)");
      await subscriber.sql(name, `DROP SUBSCRIPTION ${name}`);
      await eventually("the slot to be free", async () => {
        await publisher.sql("postgres", `SELECT pg_drop_replication_slot('${name}')`);
        return true;
      });
    },
  };
}
