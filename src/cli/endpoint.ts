/**
 * Where a command finds the control API, and with which token.
 *
 * A token from the configuration goes to the address from the configuration only: `--api` of another node never
 * gets this one's.
 */
import { type Address, formatAddress, parseAddress } from "../config/address.ts";
import { loadSettings } from "../config.ts";
import { environmentName } from "../config/settings.ts";
import { MmliteError } from "../errors.ts";
import type { Context, GlobalOptions } from "./context.ts";

/** A control API. */
export interface Endpoint {
  readonly place: { readonly socket: string } | { readonly address: Address };
  /** Null where none is needed. */
  readonly tokenFile: string | null;
}

/** The endpoint that `--api`, `MMLITE_API` or the configuration names, else the default one. */
export async function findEndpoint(options: GlobalOptions, { env }: Context): Promise<Endpoint> {
  const tokenFile = options.tokenFile ?? (env[environmentName("token-file")] || null);
  const named = options.api ?? env[environmentName("api")];
  if (named) return { place: parsePlace(named), tokenFile };
  const { settings } = await loadSettings({ flags: {}, env, file: options.config });
  const { address, socket, token_file } = settings.listen.api;
  const place = socket === undefined ? { address: reachable(parseAddress(address)!) } : { socket };
  return { place, tokenFile: tokenFile ?? token_file ?? null };
}

/** The endpoint for people, such as `127.0.0.1:7433`. */
export function describeEndpoint({ place }: Endpoint): string {
  return "socket" in place ? `unix:${place.socket}` : formatAddress(place.address);
}

/** Parses `HOST:PORT`, `http://HOST:PORT` or `unix:PATH`; throws `usage` for anything else. */
export function parsePlace(text: string): Endpoint["place"] {
  if (text.startsWith("unix:") && text.length > "unix:".length) return { socket: text.slice("unix:".length) };
  const address = parseAddress(text.replace(/^http:\/\/(.*?)\/?$/, "$1"));
  if (address === null || address.port === 0) {
    throw new MmliteError("usage", `Cannot use --api ${JSON.stringify(text)}: it is no address`, {
      hint: "Write HOST:PORT, http://HOST:PORT or unix:PATH",
    });
  }
  return { address: reachable(address) };
}

/** An address to listen on as one to dial. */
function reachable({ host, port }: Address): Address {
  if (host === "0.0.0.0") return { host: "127.0.0.1", port };
  return { host: host === "::" ? "::1" : host, port };
}
