/**
 * The URL of a peer: scheme, host and port, nothing else.
 */
import { MmliteError } from "../errors.ts";

/** Parses the URL of a peer's `listen` address; throws `invalid_input` for anything but `http[s]://host:port`. */
export function parsePeerUrl(text: string): URL {
  if (!URL.canParse(text)) throw invalidUrl(text, "it is not a URL");
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidUrl(text, "the scheme is neither https nor http");
  }
  if (url.hostname === "") throw invalidUrl(text, "it names no host");
  if (url.username !== "" || url.password !== "") throw invalidUrl(url.origin, "it holds credentials");
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    throw invalidUrl(text, "something follows the port");
  }
  return url;
}

/** Where a peer's URL leads: host, without the brackets of IPv6, and port. */
export function addressOf({ hostname, port, protocol }: URL): { host: string; port: number } {
  const host = hostname.replace(/^\[|\]$/g, "");
  return { host, port: port === "" ? (protocol === "https:" ? 443 : 80) : Number(port) };
}

function invalidUrl(text: string, why: string): MmliteError {
  return new MmliteError("invalid_input", `Cannot use ${JSON.stringify(text)} as a peer's URL: ${why}`, {
    hint: "Give the peer's --listen address in the form https://host:port, or http://host:port without TLS",
  });
}
