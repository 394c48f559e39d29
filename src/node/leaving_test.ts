import assert from "node:assert/strict";
import { MmliteError } from "../errors.ts";
import type { Database } from "./database.ts";
import { Leaving } from "./leaving.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";

Deno.test("a peer that cannot be asked may differ too, and that is noted while the slot is there yet", async () => {
  const steps: string[] = [];
  const query = () => () => Promise.resolve([]);
  const others = ["away", "fra", "lost"].map((name) => ({ name, removing: false }) as Peer);
  const leaving = new Leaving({
    database: { control: { query } } as unknown as Database,
    self: "ams",
    peers: {
      get: (name: string) => others.find((peer) => peer.name === name),
      list: () => others,
      repairIsDue: (name: string) => Promise.resolve(void steps.push(`due ${name}`)),
      force: async (name: string, { beforeSlotGoes }: { beforeSlotGoes: () => Promise<void> }) => {
        await beforeSlotGoes();
        steps.push(`removed ${name}`);
      },
    } as unknown as Peers,
    verification: {
      askApplied: ({ name }) =>
        name === "away"
          ? Promise.reject(new MmliteError("unreachable", "gone"))
          : Promise.resolve({ lsn: null, at: null }),
    },
    signal: new AbortController().signal,
  });
  const { removed, remedies } = await leaving.force("lost");
  assert.deepEqual([removed, steps], [true, ["due away", "due fra", "removed lost"]]);
  assert.match(
    remedies.at(-1)!,
    /`mmlite peers remove ams --force` on "lost", `mmlite peers add` on both nodes/,
  );
});
