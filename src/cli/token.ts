/**
 * `mmlite token` and `mmlite wait`: reading on one node what was written or read on another.
 */
import type { Command } from "commander";
import type { PositionToken } from "../api/token_schemas.ts";
import { parseShortDuration, SHORT_DURATION_RULE } from "../duration.ts";
import { MmliteError } from "../errors.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatData } from "./output.ts";

interface TokenOptions extends GlobalOptions {
  readonly own?: boolean;
}

interface WaitOptions extends GlobalOptions {
  readonly timeout?: string;
}

/** Adds the commands. */
export function addTokens(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const token = program.command("token").description("print a token of all that can be read here now")
    .option("--own", "leave out what has come from other nodes");
  setAction<TokenOptions>(token, { action: (options) => giveToken(options, context), finish });
  const wait = program.command("wait <TOKEN>")
    .description("wait until all that a token of any node stands for can be read here")
    .option("--timeout <TIME>", "how long, such as 500ms, 5s or 2m (default: 5s)")
    .addHelpText(
      "after",
      "\nExit code 0 once it can, 75 if not in time: the same token may be waited for again.",
    );
  setAction<WaitOptions>(wait, {
    action: (options, [token]) => waitFor(options, { context, token }),
    finish,
  });
}

function giveToken(options: TokenOptions, context: Context): Promise<number> {
  return callApi<PositionToken>({ method: "GET", path: `/v1/token${options.own ? "?own" : ""}` }, {
    options,
    context,
    show: ({ body }) => {
      context.print(options.output === "table" ? body.token : formatData(body, options.output));
      return 0;
    },
  });
}

function waitFor(
  options: WaitOptions,
  { context, token }: { readonly context: Context; readonly token: string },
): Promise<number> {
  const { timeout } = options;
  const mayTakeMs = timeout === undefined ? undefined : parseShortDuration(timeout);
  if (mayTakeMs === null) {
    throw new MmliteError("usage", `Cannot use --timeout ${JSON.stringify(timeout)}: it is no duration`, {
      hint: `Write ${SHORT_DURATION_RULE}`,
    });
  }
  const query = new URLSearchParams({ token, ...(timeout === undefined ? {} : { timeout }) });
  return callApi<{ waited_seconds: number }>({ method: "GET", path: `/v1/wait?${query}`, mayTakeMs }, {
    options,
    context,
    show: ({ body }) => {
      if (options.output !== "table") context.print(formatData(body, options.output));
      else if (!options.quiet) context.note(`It can be read here, after ${body.waited_seconds} s`);
      return 0;
    },
  });
}
