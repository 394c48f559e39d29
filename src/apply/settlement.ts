/**
 * How conflicts of each relation are settled in an apply session: by the table's policy, and what the server keeps.
 */
import type { TablePolicy } from "../conflict_policy.ts";
import type { Settlement } from "./relation_map.ts";
import type { ApplySession } from "./session.ts";
import { ownVersionCondition } from "./set_statements.ts";

interface SettlementOptions {
  /** The sender's node name. */
  readonly origin: string;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
}

/** See the module's head. */
export function settlementOf(
  session: ApplySession,
  { origin, policyOf }: SettlementOptions,
): (schema: string, name: string) => Settlement {
  const isOwn = ownVersionCondition(session, origin);
  const versioned = session.trackCommitTimestamp;
  return (schema, name) => ({ policy: policyOf(schema, name), versioned, isOwn });
}
