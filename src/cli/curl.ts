/**
 * The curl line that does what a command does, ready for a POSIX shell.
 */
import { formatAddress } from "../config/address.ts";
import type { ApiRequest } from "./client.ts";
import type { Endpoint } from "./endpoint.ts";

/** One line; the token stays in its file and is read when the line runs. */
export function formatCurl({ method, path, body }: ApiRequest, { place, tokenFile }: Endpoint): string {
  const words = ["curl", "-sS"];
  if (method !== "GET") words.push("-X", method);
  if ("socket" in place) words.push("--unix-socket", quote(place.socket));
  if (tokenFile !== null) words.push("-H", `"Authorization: Bearer $(head -n 1 ${quote(tokenFile)})"`);
  if (body !== undefined) {
    words.push("-H", quote("Content-Type: application/json"), "-d", quote(JSON.stringify(body)));
  }
  const authority = "socket" in place ? "localhost" : formatAddress(place.address);
  words.push(quote(`http://${authority}${path}`));
  return words.join(" ");
}

/** A word of a shell's command line: as it is where nothing in it is special, else in single quotes. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
