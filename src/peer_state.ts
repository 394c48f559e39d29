/**
 * The states of a link, as the status and the metrics name them.
 */

/** What a link does at the moment; `blocked` and `fenced` need an operator. */
export const PEER_STATES = [
  "connecting",
  "copying",
  "catchup",
  "streaming",
  "backoff",
  "paused",
  "blocked",
  "fenced",
] as const;

/** One of {@link PEER_STATES}. */
export type PeerState = (typeof PEER_STATES)[number];
