import assert from "node:assert/strict";
import type { Peers } from "./peers.ts";
import { Repair, Resync } from "./repair.ts";
import type { RowWriters } from "./row_writers.ts";
import type { Verification } from "./verification.ts";

const DEFAULTS = { newest: false, dry_run: false, share: 1, limit: 1, settle_seconds: 1 } as const;

Deno.test("a repair takes its rows from a peer, and only for tables that it can name", () => {
  const repair = new Repair({
    self: "ams",
    peers: {
      find: (name: string) => name === "fra" ? { removing: false } : undefined,
      list: () => [{ name: "fra", removing: false }],
    } as unknown as Peers,
    verification: {} as Verification,
    writers: { requireVersions: () => {} } as RowWriters,
  });
  const check = (source: string, tables?: string[]) =>
    repair.check({ ...DEFAULTS, type: "repair", source, tables });
  check("fra");
  assert.throws(() => check("ams"), { kind: "invalid_input", hint: /on the other node, with --source ams/ });
  assert.throws(() => check("nyc"), { kind: "invalid_input", message: /"nyc": there is no such peer/ });
  assert.throws(() => check("fra", ["t"]), { kind: "invalid_input", message: /expected schema\.table/ });
  assert.throws(() => repair.check({ ...DEFAULTS, type: "repair" }), {
    kind: "invalid_input",
    hint: /newest/,
  });
  const newest = (input: object) => repair.check({ ...DEFAULTS, type: "repair", newest: true, ...input });
  newest({ peer: "fra" });
  newest({});
  assert.throws(() => newest({ source: "fra" }), {
    kind: "invalid_input",
    message: /newest rows and by those of a source/,
  });
  const resync = new Resync(repair);
  const { newest: _, ...defaults } = DEFAULTS;
  const one = (table: string) => resync.check({ ...defaults, type: "resync", table, from: "fra" });
  one('app."odd*name"');
  assert.throws(() => one("app.*"), { kind: "invalid_input", message: /more than one table/ });
});
