/**
 * Addresses to listen on: `HOST:PORT`, with the host of IPv6 in brackets.
 */
import { isIP } from "node:net";
import { hostname } from "node:os";

/** A host (name or IP, no brackets) and a port, 0 to 65535; port 0 lets the system choose. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const ADDRESS_TEXT = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+)):([0-9]{1,5})$/;

/** Parses `HOST:PORT` or `[IPV6]:PORT`; null for anything else. */
export function parseAddress(text: string): Address | null {
  const match = ADDRESS_TEXT.exec(text);
  if (match === null) return null;
  const [, ipv6, name, digits] = match;
  const port = Number(digits);
  if (port > 65_535 || (ipv6 !== undefined && isIP(ipv6) !== 6)) return null;
  return { host: ipv6 ?? name, port };
}

/** Formats an address as {@link parseAddress} takes it. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether only this machine can reach what listens on the host. */
export function isLoopbackHost(host: string): boolean {
  if (host === "localhost" || host === "::1") return true;
  const ipv4 = host.toLowerCase().startsWith("::ffff:") ? host.slice("::ffff:".length) : host;
  return isIP(ipv4) === 4 && ipv4.startsWith("127.");
}

/** What is advertised by a node that nobody can dial. */
export const NO_ADVERTISE = "none";

/** Where peers dial a node that is bound to `bound`: null if nowhere, the default if `advertise` is null. */
export function advertisedUrl(
  { advertise, tls }: { readonly advertise: string | null; readonly tls: object | null },
  bound: Address,
): string | null {
  return advertise === NO_ADVERTISE ? null : advertise ?? defaultAdvertiseUrl(bound, peerScheme(tls));
}

/** The scheme of the URL of a peer port, with TLS or without (null). */
export function peerScheme(tls: object | null): "http" | "https" {
  return tls === null ? "http" : "https";
}

/**
 * The URL that peers dial when none is advertised: the address listened on, or this machine's host name where
 * that is every address.
 */
export function defaultAdvertiseUrl({ host, port }: Address, scheme: "http" | "https"): string {
  const everyAddress = host === "0.0.0.0" || host === "::";
  return `${scheme}://${formatAddress({ host: everyAddress ? hostname() : host, port })}`;
}
