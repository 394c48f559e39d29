/**
 * `/v1/events`: what happens on the node, as server-sent events
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { delay } from "../backoff.ts";
import type { ApiEnv } from "./access.ts";
import { EventPayloads } from "./conflict_schemas.ts";
import type { NodeControl, NodeEvent } from "./control.ts";
import { knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { refuseInvalid } from "./validation.ts";

/** A comment goes out after this long without an event, milliseconds: proxies and clients give up on silence. */
export const KEEPALIVE_INTERVAL_MS = 15_000;

const events = createRoute({
  method: "get",
  path: "/v1/events",
  tags: ["node"],
  summary: "What happens on the node, as it happens",
  description:
    "Events `conflict`, `peer`, `problem` and `job`. Peers, problems and jobs come as they are at first, then at " +
    "each change. With Last-Event-ID the conflicts noted since come too; one may come twice, none is left out.",
  request: {
    query: NoQuery,
    headers: z.object({
      "last-event-id": z.string().regex(/^[0-9]{1,18}$/, "Expected the id of an event, digits").optional(),
    }),
  },
  responses: {
    200: {
      description: "server-sent events, whose data is JSON",
      content: { "text/event-stream": { schema: z.union(Object.values(EventPayloads)) } },
    },
    ...REFUSALS,
  },
});

/** Adds the route to the app. */
export function addEventRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(events, (c) => {
    const after = c.req.valid("header")["last-event-id"] ?? null;
    const stop = new AbortController();
    const frames = eventFrames(control.events({ after, signal: stop.signal }));
    const body = new ReadableStream<Uint8Array>({
      async pull(stream) {
        const { value, done } = await frames.next();
        if (done) stream.close();
        else stream.enqueue(new TextEncoder().encode(value));
      },
      async cancel() {
        stop.abort();
        await frames.return();
      },
      // Nothing begins before somebody reads.
    }, { highWaterMark: 0 });
    return new Response(body, { headers: { "content-type": "text/event-stream" } }) as never;
  }, refuseInvalid(knownKeys(events)));
}

/** The text of each event, and of a comment where none comes for long. */
export async function* eventFrames(
  source: AsyncIterable<NodeEvent>,
  keepaliveMs = KEEPALIVE_INTERVAL_MS,
): AsyncGenerator<string, void> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    // At once, so that the client knows that it is heard.
    yield ": mmlite\n\n";
    for (let next = iterator.next();;) {
      const late = new AbortController();
      const first = await Promise.race([next, delay(keepaliveMs, late.signal)]).finally(() => late.abort());
      if (first === undefined) {
        yield ": keepalive\n\n";
        continue;
      }
      if (first.done) return;
      yield formatEvent(first.value);
      next = iterator.next();
    }
  } finally {
    await iterator.return?.();
  }
}

function formatEvent({ name, id, data }: NodeEvent): string {
  return `event: ${name}\n${id === null ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}
