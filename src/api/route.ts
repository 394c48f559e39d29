/**
 * Pieces that the API's route definitions share: how answers and query parameters are described.
 */
import { z } from "@hono/zod-openapi";
import type { KnownKeys } from "./validation.ts";
import { Problem } from "./schemas.ts";

/** A switch in a query: `?force` and `?force=true` turn it on. */
export const Switch = z.enum(["", "true", "false"]).optional();

/** No query parameter at all. */
export const NoQuery = z.strictObject({});
/** `?dry_run` */
export const DryRunQuery = z.strictObject({
  dry_run: Switch.openapi({ description: "check everything, change nothing" }),
});
/** `?force` and `?dry_run` */
export const RemoveQuery = z.strictObject({
  dry_run: Switch.openapi({ description: "change nothing, and tell what would be left undelivered" }),
  force: Switch.openapi({ description: "drop the slot at once; what is not delivered is lost to the peer" }),
});

/** Whether a {@link Switch} is on. */
export function isOn(value: "" | "true" | "false" | undefined): boolean {
  return value === "" || value === "true";
}

/** A JSON answer of a route. */
export function json<Schema extends z.ZodType>(schema: Schema, description: string) {
  return { description, content: { "application/json": { schema } } };
}

/** A plain text answer of a route. */
export function text(description: string) {
  return { description, content: { "text/plain": { schema: z.string() } } };
}

/** What every route answers when it refuses or fails. */
export const REFUSALS = {
  default: { description: "refused", content: { "application/problem+json": { schema: Problem } } },
} as const;

/** The keys that a route's query, path and body know. */
export function knownKeys(route: { request?: RequestShapes }): KnownKeys {
  const { query, params, body } = route.request ?? {};
  return {
    query: Object.keys(query?.shape ?? {}),
    param: Object.keys(params?.shape ?? {}),
    json: Object.keys(body?.content["application/json"].schema.shape ?? {}),
  };
}

interface RequestShapes {
  readonly query?: Shaped;
  readonly params?: Shaped;
  readonly body?: { readonly content: { readonly "application/json": { readonly schema: Shaped } } };
}

interface Shaped {
  readonly shape: object;
}
