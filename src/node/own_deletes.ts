/**
 * The node's own deletes on its database: see `apply/own_deletes.ts`.
 */
import { OwnDeletes } from "../apply/own_deletes.ts";
import type { ApplyObserver } from "../apply/report.ts";
import { openApplySession } from "../apply/session.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { ensureNamedOrigin } from "../pg/progress.ts";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";

interface Options {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  readonly applied: Applied;
  /** Is told of the conflicts that are settled. */
  readonly observer: Pick<ApplyObserver, "conflict">;
  readonly signal: AbortSignal;
}

/** Opens nothing yet: the session is there once there is something to remove. */
export function openOwnDeletes({ database, self, policyOf, applied, observer, signal }: Options): OwnDeletes {
  const query = database.control.query("note what was deleted here");
  const name = `mmlite:${self}`;
  return new OwnDeletes({
    self,
    query,
    serverVersion: database.facts.versionNumber,
    versioned: database.facts.trackCommitTimestamp,
    policyOf,
    observer,
    openSession: async () => {
      await ensureNamedOrigin(query, name);
      // Another node on the same server may apply what this one sends, under the origin of its name.
      const origin = { target: database.target, origin: self, originName: name };
      return await openApplySession({ ...origin, signal });
    },
    mayHaveApplied: (time) => applied.since(time),
  });
}
