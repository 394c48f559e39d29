/**
 * `/v1/jobs`: long work that the node does for an operator, one job after the other.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { Job, JobInput, JobList } from "./job_schemas.ts";
import { DryRunQuery, isOn, json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["jobs"];

const JobPath = z.strictObject({ id: z.string().openapi({ example: "1" }) });

const create = createRoute({
  method: "post",
  path: "/v1/jobs",
  tags: TAGS,
  summary: "Begin a job",
  description: "One runs at a time; the others wait.",
  request: {
    query: DryRunQuery,
    body: { required: true, content: { "application/json": { schema: JobInput } } },
  },
  responses: {
    202: {
      ...json(Job, "it waits or runs"),
      headers: z.object({
        location: z.string().openapi({ description: "where the job is; not of a dry run" }),
      }),
    },
    ...REFUSALS,
  },
});

const list = createRoute({
  method: "get",
  path: "/v1/jobs",
  tags: TAGS,
  summary: "List the jobs, without their results",
  request: { query: NoQuery },
  responses: { 200: json(JobList, "the latest first"), ...REFUSALS },
});

const show = createRoute({
  method: "get",
  path: "/v1/jobs/{id}",
  tags: TAGS,
  summary: "Show a job and its result",
  request: { params: JobPath, query: NoQuery },
  responses: { 200: json(Job, "the job"), ...REFUSALS },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/jobs/{id}",
  tags: TAGS,
  summary: "Cancel a job, or forget one that has ended",
  request: { params: JobPath, query: NoQuery },
  responses: { 204: { description: "cancelled, or gone" }, ...REFUSALS },
});

/** Adds the routes to the app. */
export function addJobRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(create, async (c) => {
    const dryRun = isOn(c.req.valid("query").dry_run);
    const job = await control.createJob(c.req.valid("json"), { dryRun });
    if (!dryRun) c.header("location", `/v1/jobs/${job.id}`);
    return c.json(job, 202);
  }, refuseInvalid({ ...knownKeys({ request: { query: DryRunQuery } }), json: JOB_KEYS }));

  app.openapi(list, async (c) => {
    return c.json({ items: [...await control.listJobs()], next_cursor: null }, 200);
  }, refuseInvalid(knownKeys(list)));

  app.openapi(
    show,
    async (c) => c.json(await control.getJob(c.req.valid("param").id), 200),
    refuseInvalid(knownKeys(show)),
  );

  app.openapi(remove, async (c) => {
    await control.removeJob(c.req.valid("param").id);
    return c.body(null, 204);
  }, refuseInvalid(knownKeys(remove)));
}

const JOB_KEYS = [...new Set(JobInput.options.flatMap(({ shape }) => Object.keys(shape)))];
