/**
 * What is done about a conflict, by type and policy. Only last_update_wins makes nodes agree whatever the order in
 * which changes arrive.
 */

/** Conflicts by PostgreSQL 18's names; `update_deleted` is a row that comes after its delete, by an insert too. */
export const CONFLICT_TYPES = [
  "insert_exists",
  "update_origin_differs",
  "update_exists",
  "update_missing",
  "update_deleted",
  "delete_origin_differs",
  "delete_missing",
  "multiple_unique_conflicts",
] as const;

/** See {@link CONFLICT_TYPES}. */
export type ConflictType = typeof CONFLICT_TYPES[number];

/** How conflicts are settled: by version, by who was there, or not at all. */
export const CONFLICT_POLICIES = [
  "last_update_wins",
  "first_update_wins",
  "apply_remote",
  "keep_local",
  "error",
] as const;

/** See {@link CONFLICT_POLICIES}. */
export type ConflictPolicy = typeof CONFLICT_POLICIES[number];

/** What became of the change: it was written, it was not, or the link stops before it. */
export type Resolution = "applied" | "skipped" | "error";

/** The policy of a table. */
export interface TablePolicy {
  readonly policy: ConflictPolicy;
  /** For single types another one. */
  readonly types: Readonly<Partial<Record<ConflictType, ConflictPolicy>>>;
}

/** Where nothing else is said. */
export const DEFAULT_POLICY: TablePolicy = { policy: "last_update_wins", types: {} };

/** Whether nodes that have exchanged everything hold the same rows under it, or stop and say so. */
export function converges(policy: TablePolicy): boolean {
  return divergingPolicy(policy) === null;
}

/** The first policy in it under which nodes can come to hold different rows; null if it {@link converges}. */
export function divergingPolicy({ policy, types }: TablePolicy): ConflictPolicy | null {
  const used = [policy, ...Object.values(types)];
  return used.find((one) => one !== "last_update_wins" && one !== "error") ?? null;
}

/** Whether every conflict is settled by the newer version. */
export function isLastUpdateWins({ policy, types }: TablePolicy): boolean {
  return [policy, ...Object.values(types)].every((one) => one === "last_update_wins");
}

/** What the change is beside what is here: newer or older than it; or there is nothing here that it could beat. */
export type Standing = "newer" | "older" | "missing";

/** What becomes of a change in a conflict. */
export function resolve(
  { policy, types }: TablePolicy,
  type: ConflictType,
  standing: Standing,
): Resolution {
  // Nothing is left to delete, whatever is wanted.
  const isGone = type === "delete_missing";
  switch (types[type] ?? policy) {
    case "last_update_wins":
      return standing === "older" || isGone ? "skipped" : "applied";
    case "first_update_wins":
      return standing === "newer" || isGone ? "skipped" : "applied";
    case "apply_remote":
      return isGone ? "skipped" : "applied";
    case "keep_local":
      return "skipped";
    case "error":
      return "error";
  }
}
