/**
 * JSON of `/v1/tables/patterns`.
 */
import { z } from "@hono/zod-openapi";

/** Whether tables that match a pattern are replicated or left out. */
export const PatternKind = z.enum(["include", "exclude"]).openapi("PatternKind");
export type PatternKind = z.infer<typeof PatternKind>;

/** A pattern of tables, and who set it. */
export const TablePattern = z.object({
  pattern: z.string().openapi({ example: "public.*" }),
  kind: PatternKind,
  from: z.enum(["file", "api"]).openapi({ description: "file stands for flags and the environment, too" }),
  active: z.boolean().openapi({ description: "false for one of the file that the API has overruled" }),
}).openapi("TablePattern");
export type TablePattern = z.infer<typeof TablePattern>;

/** A page of patterns. */
export const TablePatternList = z.object({
  items: z.array(TablePattern),
  next_cursor: z.string().nullable(),
}).openapi("TablePatternList");

/** What PUT takes for a pattern. */
export const PatternInput = z.strictObject({
  kind: PatternKind.optional().openapi({ description: "include unless given" }),
}).openapi("PatternInput");
export type PatternInput = z.infer<typeof PatternInput>;

const Name = z.object({ schema: z.string(), name: z.string() });

/** What a change of the patterns does. */
export const PatternChange = TablePattern.extend({
  matches: z.array(Name).openapi({ description: "tables of this database that the pattern matches" }),
  published: z.array(
    Name.extend({ state: z.enum(["replicated", "insert_only"]), hint: z.string().nullable() }),
  ).openapi({ description: "tables that are published from now on" }),
  withdrawn: z.array(Name).openapi({ description: "tables that are not published any more" }),
}).openapi("PatternChange");
export type PatternChange = z.infer<typeof PatternChange>;
