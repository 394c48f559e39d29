/**
 * Whether the peer port speaks TLS, and with which files.
 *
 * Files that are configured, or that stand where `mmlite cert` puts them, mean TLS. Without any, cleartext is for
 * loopback alone, or for a network that the operator declares to be trusted (`--insecure`).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MmliteError } from "../errors.ts";
import { formatAddress, isLoopbackHost, parseAddress } from "./address.ts";
import type { MergedSettings } from "./layer.ts";

/** The files of a peer port that speaks TLS. */
export interface TlsConfig {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  /** Null on a node that cannot issue certificates. */
  readonly caKey: string | null;
}

/** What it takes to reach peers safely, said wherever it is missing. */
export const TLS_HINT =
  "Run `mmlite cert ca` on the first node, and have the others join by token (`mmlite invite`) or get what " +
  "`mmlite cert issue NAME` writes; or add --insecure where you trust the whole network between the nodes";

/** The directory, under the state directory, where `mmlite cert` puts files and a node looks for them. */
export function tlsDirectory(state: string): string {
  return join(state, "tls");
}

/** What the four files are called in a directory of their own. */
export function tlsFilesIn(directory: string): TlsConfig & { readonly caKey: string } {
  const place = (name: string) => join(directory, name);
  return {
    cert: place("node.pem"),
    key: place("node-key.pem"),
    ca: place("ca.pem"),
    caKey: place("ca-key.pem"),
  };
}

/** The files to use, or null for cleartext; throws `config` where neither is safe, or both are asked for. */
export function decideTls(merged: MergedSettings): TlsConfig | null {
  const { listen: { peers }, insecure, state } = merged.settings;
  if (typeof peers.tls === "object" && insecure) throw bothAskedFor(merged);
  if (peers.tls !== "off" && !insecure) {
    const { cert, ca } = tlsFilesIn(tlsDirectory(state));
    if (peers.tls !== undefined || existsSync(cert) || existsSync(ca)) return tlsFilesOf(merged);
  }
  if (!insecure) refuseCleartext(merged);
  return null;
}

/** The files that are configured, and the default places of the others, whether they exist or not. */
export function tlsFilesOf({ settings: { listen, state } }: MergedSettings): TlsConfig {
  const { cert, key, ca, ca_key } = typeof listen.peers.tls === "object" ? listen.peers.tls : {};
  const places = tlsFilesIn(tlsDirectory(state));
  // A CA key that lies in the default place belongs to the CA that lies beside it.
  const caKey = (ca ?? places.ca) === places.ca && existsSync(places.caKey) ? places.caKey : null;
  return { cert: cert ?? places.cert, key: key ?? places.key, ca: ca ?? places.ca, caKey: ca_key ?? caKey };
}

function bothAskedFor({ origins }: MergedSettings): MmliteError {
  const [key, origin] = [...origins].find(([key]) => key.startsWith("listen.peers.tls."))!;
  return new MmliteError(
    "config",
    `Cannot use both ${key} (${origin}) and insecure (${origins.get("insecure")})`,
    { hint: "Drop insecure to speak TLS, or the files to speak cleartext" },
  );
}

function refuseCleartext({ settings, origins }: MergedSettings): void {
  const { address, tls } = settings.listen.peers;
  const parsed = parseAddress(address)!;
  if (isLoopbackHost(parsed.host)) return;
  const place = `"${formatAddress(parsed)}" (${origins.get("listen.peers.address")})`;
  const why = tls === "off"
    ? `TLS is off (${origins.get("listen.peers.tls")})`
    : "there is no certificate to speak TLS with";
  throw new MmliteError(
    "config",
    `Cannot listen for peers on ${place}: other machines can reach it, and ${why}`,
    { hint: TLS_HINT },
  );
}
