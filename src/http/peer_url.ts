/**
 * The URL of a peer: scheme, host and port, nothing else.
 */
import { MmliteError } from "../errors.ts";

/** Parses the URL of a peer's `listen` address; throws `invalid_input` for anything but `http://host:port`. */
export function parsePeerUrl(text: string): URL {
  if (!URL.canParse(text)) throw invalidUrl(text, "it is not a URL");
  const url = new URL(text);
  if (url.protocol !== "http:") {
    const why = url.protocol === "https:"
      ? "this release has no TLS between nodes yet"
      : "the scheme is not http";
    throw invalidUrl(text, why);
  }
  if (url.hostname === "") throw invalidUrl(text, "it names no host");
  if (url.username !== "" || url.password !== "") throw invalidUrl(url.origin, "it holds credentials");
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    throw invalidUrl(text, "something follows the port");
  }
  return url;
}

function invalidUrl(text: string, why: string): MmliteError {
  return new MmliteError("invalid_input", `Cannot use ${JSON.stringify(text)} as a peer's URL: ${why}`, {
    hint: "Give the peer's --listen address in the form http://host:port",
  });
}
