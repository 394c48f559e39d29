/**
 * The JSON of `/v1/token` and `/v1/wait`.
 */
import { z } from "@hono/zod-openapi";
import { LsnText, PeerName } from "./schemas.ts";

/** How far the WAL of a node had come. */
const NodePosition = z.object({
  node: PeerName,
  lsn: LsnText.openapi({ description: "in that node's WAL" }),
}).openapi("NodePosition");

/** What `/v1/token` answers. */
export const PositionToken = z.object({
  token: z.string().openapi({
    description: "for `/v1/wait` of any node of the cluster; fit for a URL as it is",
    example: "mmpos1_Bm1tbGl0ZQEDYW1zASNFZ4mrAAAAFrN02Ehw7u5e",
  }),
  positions: z.array(NodePosition).openapi({
    description: "what it stands for: this node, and the others as far as they are applied here",
  }),
}).openapi("PositionToken");
export type PositionToken = z.infer<typeof PositionToken>;

/** What `/v1/wait` answers once all is visible. */
export const WaitAnswer = z.object({
  reached: z.literal(true),
  waited_seconds: z.number().nonnegative(),
}).openapi("WaitAnswer");
