/**
 * Which compression this node offers and takes, of what the operator allows.
 */
import type { CompressionSetting } from "../config.ts";
import { isLoopbackHost, parseAddress } from "../config/address.ts";
import { AVAILABLE_COMPRESSIONS, type Compression } from "../wire/compression.ts";

/** What a sender may be asked for, best first. */
export function allowedCompressions(setting: CompressionSetting): readonly Compression[] {
  if (setting === "off") return [];
  return AVAILABLE_COMPRESSIONS.filter((name) => setting === "auto" || setting === name);
}

/** What is offered to a receiver at `remote`, an address and port: by itself nothing on the same machine. */
export function offeredCompressions(setting: CompressionSetting, remote: string): readonly Compression[] {
  const host = parseAddress(remote)?.host;
  if (setting === "auto" && host !== undefined && isLoopbackHost(host)) return [];
  return allowedCompressions(setting);
}
