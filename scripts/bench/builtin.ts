/**
 * The subscription that is built into PostgreSQL, with its defaults, and `origin = none` as a multi-master
 * needs it.
 */
import { eventually } from "../../tests/support/poll.ts";
import { PUBLICATION, sourceOf, targetOf } from "./bed.ts";
import type { Database } from "./marks.ts";
import { serverTimes } from "./processor_time.ts";
import type { Rival } from "./rival.ts";

/** How the receiving server reaches the sending one: by TCP as between two hosts, or by the unix socket. */
export interface Reach {
  /** It cannot be used between hosts. */
  readonly unixSocket: boolean;
  /** The sending server's, for TCP; 127.0.0.1 unless given. */
  readonly host?: string;
}

/** The rival. */
export function builtinRival(reach: Reach): Rival {
  return {
    name: reach.unixSocket ? "builtin_unix" : "builtin",
    prepare: async ({ name, bed }) => await createSlot(sourceOf(bed), name),
    async attach(run) {
      const { name, bed } = run;
      const subscription = await subscribe(name, { from: sourceOf(bed), to: targetOf(run), reach });
      return {
        start: subscription.enable,
        processorTime: async () => ({ ...await serverTimes(bed), sender: 0, receiver: 0 }),
        peakMemory: () => null,
        detach: subscription.drop,
      };
    },
  };
}

/** Makes the slot of a subscription. */
export async function createSlot({ server, database }: Database, name: string): Promise<void> {
  await server.sql(database, `SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
}

/** A subscription that was made; it does not run yet. */
export interface Subscription {
  enable(): Promise<void>;
  /** Ends it and removes its slot. */
  drop(): Promise<void>;
}

/** Makes the subscription to a slot that is there already, of the same name. */
export async function subscribe(
  name: string,
  { from, to, reach }: { from: Database; to: Database; reach: Reach },
): Promise<Subscription> {
  await to.server.sql(
    to.database,
    `CREATE SUBSCRIPTION ${name} CONNECTION '${conninfo(from, reach)}' PUBLICATION ${PUBLICATION}
       WITH (slot_name = ${name}, create_slot = false, copy_data = false, enabled = false, origin = none)`,
  );
  const alter = (how: string) => to.server.sql(to.database, `ALTER SUBSCRIPTION ${name} ${how}`);
  return {
    enable: async () => void await alter("ENABLE"),
    async drop() {
      await alter("DISABLE");
      await alter("SET (slot_name = NONE)");
      await to.server.sql(to.database, `DROP SUBSCRIPTION ${name}`);
      await eventually("the slot to be free", async () => {
        await from.server.sql("postgres", `SELECT pg_drop_replication_slot('${name}')`);
        return true;
      });
    },
  };
}

function conninfo({ server, database }: Database, { unixSocket, host = "127.0.0.1" }: Reach): string {
  return `host=${unixSocket ? server.host : host} port=${server.port} user=postgres dbname=${database}`;
}
