/**
 * What a node that joins and a member say to each other, as JSON over the peer port (`docs/PROTOCOL.md`, section 9).
 *
 * The first request is made with a token and gets a certificate; all others are made with that certificate, which
 * says who asks.
 */
import { z } from "zod";
import { MmliteError } from "../errors.ts";
import { NODE_NAME } from "../node_name.ts";

/** Most tables that one request or answer may name: its body stays below what the peer port takes. */
export const TABLES_PER_MESSAGE = 50;

const Name = z.string().regex(NODE_NAME);
const Url = z.string().max(2_048).nullable();
const Pem = z.string().max(60_000);
const Identifier = z.string().max(256);
const Table = z.object({ schema: Identifier, name: Identifier });
const Patterns = z.array(z.string().max(1_024)).max(1_000);

const Request = z.discriminatedUnion("step", [
  z.object({
    step: z.literal("issue"),
    id: z.string().max(64),
    secret: z.string().max(256),
    name: Name,
    /** PKCS#10, PEM. */
    request: z.string().max(8_192),
  }),
  z.object({ step: z.literal("register"), url: Url }),
  z.object({ step: z.literal("tables"), after: Table.nullable() }),
  z.object({
    step: z.literal("digest"),
    /** Told apart from an earlier attempt's, whose work ends. */
    run: z.uuid(),
    tables: z.array(Table.extend({ hashed: z.boolean() })).max(TABLES_PER_MESSAGE),
  }),
  z.object({ step: z.literal("leave") }),
]);
/** A request of a node that joins. */
export type JoinRequest = z.infer<typeof Request>;
/** One kind of request. */
export type JoinRequestOf<Step extends JoinRequest["step"]> = Extract<JoinRequest, { step: Step }>;

const Answers = {
  issue: z.object({ certificate: Pem, authorities: Pem }),
  register: z.object({
    tables: z.object({ include: Patterns, exclude: Patterns }),
    /** Every other member that this one knows; without URL where nobody can dial it. */
    members: z.array(z.object({ name: Name, url: Url })).max(1_000),
    /** Nodes that were removed there: the one that joins lets them in no more than this one does. */
    removed: z.array(Name).max(1_000).default([]),
    /** In the WAL there: what ends behind it is kept for the one that joins. */
    slot_lsn: z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i),
  }),
  tables: z.object({ items: z.array(Table).max(TABLES_PER_MESSAGE), more: z.boolean() }),
  /** Null while the tables are still being read; a table that is not replicated there is left out. */
  digest: z.object({
    digests: z.array(Table.extend({
      columns: z.string().max(128),
      rows: z.string().regex(/^\d{1,20}$/),
      hash: z.string().max(128).nullable(),
    })).max(TABLES_PER_MESSAGE).nullable(),
  }),
  leave: z.object({}),
};
/** The answer to a kind of request. */
export type JoinAnswer<Step extends JoinRequest["step"]> = z.infer<(typeof Answers)[Step]>;

/** A member as others know it. */
export type Member = JoinAnswer<"register">["members"][number];

/** Reads a request; throws `invalid_input` that names the fields at fault, not their values. */
export function parseJoinRequest(body: unknown): JoinRequest {
  const { data, error } = Request.safeParse(body);
  if (data !== undefined) return data;
  throw new MmliteError(
    "invalid_input",
    `Cannot read the request to join: wrong or missing ${fields(error!)}`,
    {
      hint: "Run the same version of mmlite on both hosts",
    },
  );
}

/** Reads the answer to a request; throws `protocol`. */
export function parseJoinAnswer<Step extends JoinRequest["step"]>(
  step: Step,
  body: unknown,
): JoinAnswer<Step> {
  const { data, error } = Answers[step].safeParse(body);
  if (data !== undefined) return data as JoinAnswer<Step>;
  throw new MmliteError("protocol", `Cannot read the member's answer: wrong or missing ${fields(error!)}`, {
    hint: "Run the same version of mmlite on both hosts",
  });
}

function fields({ issues }: z.ZodError): string {
  return issues.map(({ path }) => path.join(".") || "(whole)").join(", ");
}
