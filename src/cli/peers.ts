/**
 * `mmlite peers`: the nodes that this one exchanges changes with.
 */
import { type Command, Option } from "commander";
import type { RemovalReport } from "../api/removal_schemas.ts";
import type { PeerStatus } from "../api/schemas.ts";
import { MmliteError } from "../errors.ts";
import { callApi, requestApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { findEndpoint } from "./endpoint.ts";
import { formatData } from "./output.ts";
import { formatPeers } from "./peer_table.ts";
import { formatRemoval } from "./removal.ts";

/** How long it may take to count what was not delivered, and to ask the others, milliseconds. */
const REPORT_MS = 30_000;

interface RenewOptions extends GlobalOptions {
  readonly only?: string;
}

interface SkipOptions extends GlobalOptions {
  readonly lsn?: string;
}

interface RemoveOptions extends GlobalOptions {
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

const STEERING = [
  { verb: "pause", description: "stop sending to a peer, also across restarts", done: "is paused" },
  { verb: "resume", description: "go on with a paused peer", done: "goes on" },
  { verb: "retry", description: "try a blocked or waiting peer again at once", done: "is tried again" },
] as const;

/** Adds the commands. */
export function addPeers(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const peers = program.command("peers").description("list and change the peers of a node");
  setAction(peers.command("list").description("every peer and the state of its link"), {
    action: (options) => listPeers(options, context),
    finish,
  });
  setAction(
    peers.command("add <NAME> [URL]").description(
      "add a peer, or change where it is; no URL: it dials this node",
    ),
    {
      action: (options, [name, url]) => addPeer(options, { context, name, url }),
      finish,
    },
  );
  setAction<RemoveOptions>(
    peers.command("remove <NAME>").description("remove a peer once everything is delivered to it")
      .option("--force", "remove it at once, delivered or not, and tell what was not")
      .option("--dry-run", "change nothing, and tell what --force would leave undelivered"),
    { action: (options, [name]) => removePeer(options, { context, name }), finish },
  );
  setAction<SkipOptions>(
    peers.command("skip <NAME>").description(
      "put the one transaction of a peer that cannot be applied here into quarantine",
    ).option("--lsn <LSN>", "only if that is the one (default: the one that is blocked)"),
    { action: (options, [name]) => skipTransaction(options, { context, name }), finish },
  );
  setAction<RenewOptions>(
    peers.command("renew <NAME>").description(
      "begin anew with a peer, where what one of the two was to get is gone; then a repair is due",
    ).addOption(
      new Option("--only <WAY>", "only what is sent to it, or received of it (default: both, and who it is)")
        .choices(["sent", "received"]),
    ),
    { action: (options, [name]) => renewPeer(options, { context, name }), finish },
  );
  for (const { verb, description, done } of STEERING) {
    setAction(peers.command(`${verb} <NAME>`).description(description), {
      action: (options, [name]) => steerPeer(options, { context, name, verb, done }),
      finish,
    });
  }
}

function listPeers(options: GlobalOptions, context: Context): Promise<number> {
  return callApi<{ items: PeerStatus[] }>({ method: "GET", path: "/v1/peers" }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table"
          ? formatPeers(body.items, context.colour)
          : formatData(body, options.output),
      );
      return 0;
    },
  });
}

function addPeer(
  options: GlobalOptions,
  { context, name, url }: {
    readonly context: Context;
    readonly name: string;
    readonly url: string | undefined;
  },
): Promise<number> {
  return callApi<PeerStatus>({ method: "PUT", path: peerPath(name), body: { url } }, {
    options,
    context,
    show: ({ status, body }) =>
      confirm(
        `Peer "${name}" is ${status === 201 ? "added" : "set"}${
          url === undefined ? ", and dials this node" : ""
        }`,
        {
          body,
          options,
          context,
        },
      ),
  });
}

function removePeer(
  options: RemoveOptions,
  { context, name }: { readonly context: Context; readonly name: string },
): Promise<number> {
  const query = options.dryRun ? "?dry_run=true" : options.force ? "?force=true" : "";
  const request = { method: "DELETE", path: `${peerPath(name)}${query}`, mayTakeMs: REPORT_MS } as const;
  return callApi<unknown>(request, {
    options,
    context,
    show: ({ status, body }) => {
      if (status === 200 && options.output === "table") {
        const report = body as RemovalReport;
        const done = report.removed ? `Peer "${name}" is removed` : `Peer "${name}" is left as it is`;
        if (!options.quiet) context.note(done);
        context.print(formatRemoval(report));
        return 0;
      }
      return confirm(
        status === 202
          ? `Peer "${name}" goes once everything is delivered to it`
          : `Peer "${name}" is removed`,
        { body, options, context },
      );
    },
  });
}

function steerPeer(
  options: GlobalOptions,
  { context, name, verb, done }: {
    readonly context: Context;
    readonly name: string;
    readonly verb: string;
    readonly done: string;
  },
): Promise<number> {
  return callApi<unknown>({ method: "POST", path: `${peerPath(name)}/${verb}` }, {
    options,
    context,
    show: ({ body }) => confirm(`Peer "${name}" ${done}`, { body, options, context }),
  });
}

function renewPeer(
  options: RenewOptions,
  { context, name }: { readonly context: Context; readonly name: string },
): Promise<number> {
  const path = `${peerPath(name)}/renew${options.only === undefined ? "" : `?only=${options.only}`}`;
  // Its slot waits for transactions that run.
  return callApi<unknown>({ method: "POST", path, mayTakeMs: REPORT_MS }, {
    options,
    context,
    show: ({ body }) =>
      confirm(`Peer "${name}" begins anew: rows may differ until a repair has ended`, {
        body,
        options,
        context,
      }),
  });
}

async function skipTransaction(
  options: SkipOptions,
  { context, name }: { readonly context: Context; readonly name: string },
): Promise<number> {
  const lsn = options.lsn ?? await blockedLsn(options, { context, name });
  return await callApi<unknown>({ method: "POST", path: `${peerPath(name)}/skip`, body: { lsn } }, {
    options,
    context,
    show: ({ body }) =>
      confirm(`The transaction of "${name}" at ${lsn} goes to quarantine when it comes again`, {
        body,
        options,
        context,
      }),
  });
}

/** Where the transaction of a peer is that cannot be applied; throws `conflict` if there is none. */
async function blockedLsn(
  options: GlobalOptions,
  { context, name }: { readonly context: Context; readonly name: string },
): Promise<string> {
  const endpoint = await findEndpoint(options, context);
  const { body } = await requestApi<PeerStatus>({ method: "GET", path: peerPath(name) }, endpoint);
  const lsn = body.inbound.blocked_lsn;
  if (lsn !== null) return lsn;
  throw new MmliteError("conflict", `Cannot skip a transaction of "${name}": none is blocked here`, {
    hint: "Run it on the node that receives; `mmlite peers list` shows what is blocked",
  });
}

function peerPath(name: string): string {
  return `/v1/peers/${encodeURIComponent(name)}`;
}

/** Tells people what was done, and programs what the API answered. */
function confirm(
  sentence: string,
  { body, options, context }: {
    readonly body: unknown;
    readonly options: GlobalOptions;
    readonly context: Context;
  },
): number {
  if (options.output !== "table" && body !== undefined) context.print(formatData(body, options.output));
  else if (!options.quiet) context.note(sentence);
  return 0;
}
