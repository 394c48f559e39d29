/**
 * `mmlite invite`: one-time tokens by which new nodes join through this one.
 */
import type { Command } from "commander";
import type { CreatedInvite, Invite } from "../api/invite_schemas.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { requireDuration } from "./duration.ts";
import { type Cell, type Colour, formatData, formatTable, heading } from "./output.ts";

interface InviteOptions extends GlobalOptions {
  readonly name?: string;
  readonly ttl?: string;
  readonly url?: readonly string[];
}

const STATE_COLOURS: Readonly<Record<Invite["state"], Colour>> = {
  open: "green",
  used: "bold",
  expired: "yellow",
};

const ABOUT = `
The token alone is printed on standard output. Whoever has it can join once, so hand it over as you would a
password: what stands in a command line, every user of that machine can read (\`mmlite join -\` reads it from
standard input). It needs TLS between the nodes, and the CA's key on this one.`;

/** Adds the commands. */
export function addInvite(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const invite = program.command("invite").description("print a one-time token by which a new node joins")
    .option("--name <NAME>", "the only name that may join by it")
    .option("--ttl <TIME>", "how long it lasts, such as 30m or 2d (default: 1h)")
    .option(
      "--url <URL>",
      "where the new node reaches this one, as advertised if not given (repeatable)",
      (url: string, urls: string[] = []) => [...urls, url],
    )
    .addHelpText("after", ABOUT);
  setAction<InviteOptions>(invite, { action: (options) => createInvite(options, context), finish });
  setAction(invite.command("list").description("the invites of this node, without their secrets"), {
    action: (options) => listInvites(options, context),
    finish,
  });
  setAction(invite.command("withdraw <ID>").description("let nobody join by an invite any more"), {
    action: (options, [id]) => withdrawInvite(options, { context, id }),
    finish,
  });
}

function createInvite(options: InviteOptions, context: Context): Promise<number> {
  const body = {
    name: options.name,
    ttl_seconds: options.ttl === undefined ? undefined : requireDuration(options.ttl, "--ttl"),
    urls: options.url,
  };
  return callApi<CreatedInvite>({ method: "POST", path: "/v1/invites", body }, {
    options,
    context,
    show: ({ body }) => {
      if (options.output !== "table") context.print(formatData(body, options.output));
      else {
        context.print(body.token);
        if (!options.quiet) explain(body).forEach((line) => context.note(line));
      }
      return 0;
    },
  });
}

/** What to do with the token: the token itself is not repeated here. */
function explain({ id, name, expires_at, urls }: CreatedInvite): string[] {
  const whom = name === null ? "one node" : `node "${name}"`;
  return [
    `Invite ${id} lets ${whom} join until ${expires_at}, over ${urls.join(" or ")}.`,
    "On the new host, where the same tables exist, empty or with equal rows:",
    `  mmlite join TOKEN --name ${name ?? "NAME"} --postgres URL --listen 0.0.0.0:7432`,
    "With - for TOKEN it is read from standard input, and other users of that host cannot see it.",
  ];
}

function listInvites(options: GlobalOptions, context: Context): Promise<number> {
  return callApi<{ items: Invite[] }>({ method: "GET", path: "/v1/invites" }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table"
          ? formatInvites(body.items, context.colour)
          : formatData(body, options.output),
      );
      return 0;
    },
  });
}

function formatInvites(invites: readonly Invite[], colour: boolean): string {
  if (invites.length === 0) return "no invites";
  const rows = invites.map((invite): (Cell | string)[] => [
    invite.id,
    { text: invite.state, colour: STATE_COLOURS[invite.state] },
    invite.name ?? "any",
    invite.expires_at,
    invite.used_by ?? "-",
  ]);
  return formatTable([heading("INVITE", "STATE", "FOR", "EXPIRES", "USED BY"), ...rows], colour);
}

function withdrawInvite(
  options: GlobalOptions,
  { context, id }: { readonly context: Context; readonly id: string },
): Promise<number> {
  return callApi<unknown>({ method: "DELETE", path: `/v1/invites/${encodeURIComponent(id)}` }, {
    options,
    context,
    show: () => {
      if (!options.quiet) context.note(`Invite ${id} is withdrawn`);
      return 0;
    },
  });
}
