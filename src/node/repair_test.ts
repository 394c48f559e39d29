import assert from "node:assert/strict";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";
import type { Peers } from "./peers.ts";
import { Repair, Resync } from "./repair.ts";
import type { Verification } from "./verification.ts";

const DEFAULTS = { dry_run: false, share: 1, limit: 1, settle_seconds: 1 } as const;

Deno.test("a repair takes its rows from a peer, and only for tables that it can name", () => {
  const repair = new Repair({
    database: {} as Database,
    self: "ams",
    peers: { find: (name: string) => name === "fra" ? { removing: false } : undefined } as unknown as Peers,
    verification: {} as Verification,
    applied: {} as Applied,
  });
  const check = (source: string, tables?: string[]) =>
    repair.check({ ...DEFAULTS, type: "repair", source, tables });
  check("fra");
  assert.throws(() => check("ams"), { kind: "invalid_input", hint: /on the other node, with --source ams/ });
  assert.throws(() => check("nyc"), { kind: "invalid_input", message: /"nyc": there is no such peer/ });
  assert.throws(() => check("fra", ["t"]), { kind: "invalid_input", message: /expected schema\.table/ });
  const resync = new Resync(repair);
  const one = (table: string) => resync.check({ ...DEFAULTS, type: "resync", table, from: "fra" });
  one('app."odd*name"');
  assert.throws(() => one("app.*"), { kind: "invalid_input", message: /more than one table/ });
});
