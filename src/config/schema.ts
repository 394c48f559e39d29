/**
 * What a configuration may hold: the strict schema of the YAML file, which flags and environment variables
 * are checked against as well.
 *
 * Every key is optional here, because the layers complete each other; `config.ts` says what must be there in
 * the end.
 */
import { z } from "zod";
import {
  CONFLICT_POLICIES,
  CONFLICT_TYPES,
  type ConflictType,
  divergingPolicy,
  type TablePolicy,
} from "../conflict_policy.ts";
import { BYTE_SIZE_RULE, parseByteSize } from "../byte_size.ts";
import { DURATION_RULE, parseDuration } from "../duration.ts";
import { LOG_FORMATS, LOG_LEVELS } from "../log.ts";
import { NODE_NAME, NODE_NAME_RULE } from "../node_name.ts";
import { parseTableName, TABLE_NAME_RULE } from "../table_name.ts";
import { NO_ADVERTISE, parseAddress } from "./address.ts";

/** Instead of files: the peer port speaks cleartext, whatever files there are. */
const TLS_OFF = "off";

const NodeName = z.string().regex(NODE_NAME, { error: `expected ${NODE_NAME_RULE}` });

const Text = z.string().min(1, { error: "expected text, not nothing" });

const ListenAddress = z.string().refine((text) => parseAddress(text) !== null, {
  error: "expected HOST:PORT, such as 127.0.0.1:7432 or [::1]:7432",
});

const PEER_URL_RULE = "an https or http URL of host and port only, such as https://fra.example:7432";

const PeerUrl = z.string().refine(isPeerUrl, { error: `expected ${PEER_URL_RULE}` });

const Advertise = z.string().refine((text) => text === NO_ADVERTISE || isPeerUrl(text), {
  error: `expected ${NO_ADVERTISE}, or ${PEER_URL_RULE}`,
});

// A pattern always names its schema: a bare "*" would take mmlite's own tables and everybody else's. In a part,
// what double quotes enclose stands for itself.
const TablePattern = z.string().regex(/^(?:[^\s".]|"(?:[^"]|"")+")+\.(?:[^\s".]|"(?:[^"]|"")+")+$/, {
  error: 'expected SCHEMA.TABLE, such as public.*, app.orders or app."odd.name"',
});

function isPeerUrl(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) return false;
  return url.pathname === "/" && url.search + url.hash + url.username + url.password === "";
}

const TlsFiles = z.strictObject({
  cert: Text.optional().meta({ description: "file of this node's certificate" }),
  key: Text.optional().meta({ description: "file of its private key" }),
  ca: Text.optional().meta({ description: "file of the authorities to trust" }),
  ca_key: Text.optional().meta({ description: "file of the CA's key, where this node issues certificates" }),
});

const Duration = z.string().refine((text) => parseDuration(text) !== null, {
  error: `expected ${DURATION_RULE}`,
});

const OFF = "off";

const Size = z.string().refine((text) => text === OFF || parseByteSize(text) !== null, {
  error: `expected ${BYTE_SIZE_RULE}, or ${OFF}`,
});

const Age = z.string().refine((text) => text === OFF || parseDuration(text) !== null, {
  error: `expected ${DURATION_RULE}, or ${OFF}`,
});

const Limits = z.strictObject({
  warn_slot_wal: Size.optional().meta({ description: "warn of a peer for which more WAL than this is kept" }),
  warn_slot_age: Age.optional().meta({ description: "warn of a peer to which nothing has gone for so long" }),
  max_slot_wal: Size.optional().meta({
    description: "give a peer up for which more WAL than this is kept: it has to begin anew",
  }),
  max_slot_age: Age.optional().meta({
    description: "give a peer up to which nothing has gone for so long: it has to begin anew",
  }),
});

/** A duration that may be zero. */
const Wait = z.string().refine((text) => parseDuration(text, 0) !== null, {
  error: `expected ${DURATION_RULE}`,
});

const Policy = z.enum(CONFLICT_POLICIES);

/** A policy for single types of conflict. */
const PolicyOfType = z.strictObject(
  Object.fromEntries(CONFLICT_TYPES.map((type) => [type, Policy.optional()])) as {
    [Type in ConflictType]: z.ZodOptional<typeof Policy>;
  },
);

const AllowDivergence = z.boolean().optional()
  .meta({ description: "nodes may come to hold different rows; without it such a policy is refused" });

const TableConflicts = z.strictObject({
  policy: Policy,
  types: PolicyOfType.optional().meta({ description: "for single types of conflict another policy" }),
  allow_divergence: AllowDivergence,
}).superRefine(({ policy, types = {}, allow_divergence }, { addIssue }) => {
  requireConvergence({ policy, types }, allow_divergence, (message) => addIssue({ code: "custom", message }));
});

const Conflicts = z.strictObject({
  default: Policy.optional().meta({ description: "how conflicts are settled" }),
  allow_divergence: AllowDivergence,
  keep: Duration.optional().meta({ description: "how long conflicts stay on record" }),
  tables: z.record(
    z.string().refine((text) => parseTableName(text) !== null, { error: `expected ${TABLE_NAME_RULE}` }),
    TableConflicts,
  ).optional().meta({ description: "tables whose conflicts are settled in another way" }),
  on_error: z.enum(["block", "quarantine"]).optional().meta({
    description:
      "of a transaction that cannot be applied: block its link, or put it into quarantine and go on",
  }),
  consistency: z.enum(["causal", "eventual"]).optional()
    .meta({
      description: "causal: changes wait, for some seconds at most, until what caused them is there",
    }),
  max_clock_wait: Wait.optional()
    .meta({
      description: "how long changes wait for this server's clock to reach the time of their commit",
    }),
}).superRefine(({ default: policy, allow_divergence }, { addIssue }) => {
  if (policy === undefined) return;
  requireConvergence(
    { policy, types: {} },
    allow_divergence,
    (message) => addIssue({ code: "custom", message, path: ["default"] }),
  );
});

function requireConvergence(
  policy: TablePolicy,
  allowed: boolean | undefined,
  complain: (why: string) => void,
): void {
  const diverging = divergingPolicy(policy);
  if (diverging === null || allowed === true) return;
  complain(
    `nodes could come to hold different rows under ${diverging}; say allow_divergence: true beside it if they may`,
  );
}

/** The configuration file. */
export const FileSchema = z.strictObject({
  node: z.strictObject({
    name: NodeName.optional().meta({ description: "this node's name, unique in the cluster" }),
    cluster: NodeName.optional().meta({ description: "nodes of different clusters refuse each other" }),
  }).optional(),
  postgres: z.strictObject({
    url: Text.optional().meta({ description: "connection string of the local database" }),
    url_file: Text.optional().meta({ description: "file whose first line is the connection string" }),
  }).optional(),
  listen: z.strictObject({
    peers: z.strictObject({
      address: ListenAddress.optional().meta({ description: "where peers reach this node" }),
      advertise: Advertise.optional()
        .meta({ description: "the URL that peers dial to reach this node, or none where they cannot" }),
      tls: z.union([z.literal(TLS_OFF), TlsFiles], { error: `expected ${TLS_OFF} or a group of files` })
        .optional().meta({ description: "the files to speak TLS with on the peer port" }),
    }).optional(),
    api: z.strictObject({
      address: ListenAddress.optional().meta({ description: "where the control API listens" }),
      socket: Text.optional().meta({ description: "unix socket of the control API" }),
      token_file: Text.optional().meta({ description: "file whose first line is the control API's token" }),
    }).optional(),
  }).optional(),
  peers: z.array(z.strictObject({ name: NodeName, url: PeerUrl.optional() })).optional()
    .meta({ description: "peers to begin with" }),
  tables: z.strictObject({
    include: z.array(TablePattern).optional().meta({ description: "tables to replicate" }),
    exclude: z.array(TablePattern).optional().meta({ description: "tables to leave out" }),
  }).optional(),
  conflicts: Conflicts.optional(),
  limits: Limits.optional(),
  state: Text.optional().meta({ description: "directory of what identifies this node on this machine" }),
  insecure: z.boolean().optional().meta({ description: "allow cleartext on a peer port others can reach" }),
  compression: z.enum(["auto", "off", "zstd", "gzip"]).optional()
    .meta({ description: "of what goes to other nodes; auto is zstd or gzip, and none on one machine" }),
  log: z.strictObject({
    level: z.enum(LOG_LEVELS).optional(),
    format: z.enum(LOG_FORMATS).optional(),
  }).optional(),
}).meta({ title: "mmlite configuration" });

/** What one layer, or all of them together, says; every key may be absent. */
export type Settings = z.infer<typeof FileSchema>;

type Group<Key extends keyof Settings> = NonNullable<Settings[Key]>;
type Needs<T, Key extends keyof T> = T & { [K in Key]-?: NonNullable<T[K]> };

/** Settings in which every key that has a default has a value. */
export interface DefaultedSettings extends Settings {
  node: Needs<Group<"node">, "cluster">;
  listen: {
    peers: Needs<NonNullable<Group<"listen">["peers"]>, "address">;
    api: Needs<NonNullable<Group<"listen">["api"]>, "address">;
  };
  peers: Group<"peers">;
  tables: Needs<Group<"tables">, "exclude">;
  conflicts: Needs<
    Group<"conflicts">,
    "default" | "keep" | "tables" | "on_error" | "consistency" | "max_clock_wait"
  >;
  limits: Required<Group<"limits">>;
  state: string;
  insecure: boolean;
  compression: NonNullable<Settings["compression"]>;
  log: Required<Group<"log">>;
}

/** The JSON Schema of the configuration file, for editors. */
export function configJsonSchema(): Record<string, unknown> {
  return z.toJSONSchema(FileSchema, { io: "input" });
}
