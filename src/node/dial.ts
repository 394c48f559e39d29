/**
 * Dialling a peer: only where this node can protect what it says as its settings ask for.
 */
import { type PeerSecurity, requireSafeUrl } from "../config/peer_url.ts";
import type { PeerDialler } from "../http/peer_dialler.ts";
import type { ChannelRoute } from "../http/session_options.ts";
import type { Channel } from "../wire/channel.ts";

/** A channel to the peer of that name at `url`; throws why there is none. */
export type Dial = (
  peer: { readonly name: string; readonly url: string },
  path: ChannelRoute,
  signal: AbortSignal,
) => Promise<Channel>;

interface DialOptions {
  readonly dialler: PeerDialler;
  readonly cluster: string;
  /** What this node has to protect connections with. */
  readonly security: PeerSecurity;
}

/** How a node dials its peers. */
export function openDial({ dialler, cluster, security }: DialOptions): Dial {
  return async ({ name, url }, path, signal) => {
    requireSafeUrl(url, security);
    return await dialler.dial(new URL(url), { peer: { cluster, node: name }, path, signal });
  };
}
