/**
 * Which URLs of peers may be dialled: never in cleartext over a network that nobody has declared to be trusted.
 */
import { MmliteError } from "../errors.ts";
import { isLoopbackHost } from "./address.ts";
import { TLS_HINT } from "./tls.ts";

/** What this node has to protect a connection with. */
export interface PeerSecurity {
  /** It has a certificate, and its peer port speaks TLS. */
  readonly tls: boolean;
  /** Cleartext is allowed over every network. */
  readonly insecure: boolean;
}

/** Throws `config` for a URL (`http` or `https`) that must not be dialled. */
export function requireSafeUrl(url: string, { tls, insecure }: PeerSecurity): void {
  const { protocol, hostname } = new URL(url);
  if (protocol === "https:") {
    if (!tls) throw refused(url, "this node has no certificate to speak TLS with", TLS_HINT);
    return;
  }
  // The URL class keeps the brackets of IPv6.
  if (insecure || isLoopbackHost(hostname.replace(/^\[|\]$/g, ""))) return;
  throw tls
    ? refused(
      url,
      "it would be dialled in cleartext, and this node speaks TLS",
      "Give it as https://host:port",
    )
    : refused(url, "it would be dialled in cleartext, and other machines could read and change it", TLS_HINT);
}

function refused(url: string, why: string, hint: string): MmliteError {
  return new MmliteError("config", `Cannot use ${JSON.stringify(url)} as a peer's URL: ${why}`, { hint });
}
