/**
 * Who a certificate is about: its SAN URI `mmlite://<cluster>/<node>`, and nothing else in it.
 *
 * The common name is never read; DNS names and addresses are for people and for other tools.
 */
import type { X509Certificate } from "node:crypto";
import { NODE_NAME } from "../node_name.ts";
import type { PeerName } from "../wire/channel.ts";
import { subjectNames } from "./subject_names.ts";

const SCHEME = "mmlite:";

/** The URI of a node, as it stands in certificates. */
export function formatPeerUri({ cluster, node }: PeerName): string {
  return `${SCHEME}//${cluster}/${node}`;
}

/** Parses what {@link formatPeerUri} makes; null for anything else, so that each node has one spelling. */
export function parsePeerUri(text: string): PeerName | null {
  const parts = text.split("/");
  if (parts.length !== 4 || parts[0] !== SCHEME || parts[1] !== "") return null;
  const [, , cluster, node] = parts;
  return NODE_NAME.test(cluster) && NODE_NAME.test(node) ? { cluster, node } : null;
}

/** The URI of a cluster, as it stands in the certificate of its authority. */
export function formatClusterUri(cluster: string): string {
  return `${SCHEME}//${cluster}`;
}

/** Which cluster an authority is for; null where it does not say, because something else than mmlite made it. */
export function clusterOf(authority: X509Certificate): string | null {
  const uris = mmliteUris(authority);
  const [cluster] = uris.map((uri) => uri.slice(formatClusterUri("").length));
  return uris.length === 1 && NODE_NAME.test(cluster) && uris[0] === formatClusterUri(cluster)
    ? cluster
    : null;
}

/** Which node a certificate names; null where it has no mmlite URI, more than one, or an odd one. */
export function peerNameOf(certificate: X509Certificate): PeerName | null {
  const uris = mmliteUris(certificate);
  return uris.length === 1 ? parsePeerUri(uris[0]) : null;
}

/** Whether two names are of the same node of the same cluster. */
export function isSamePeer(one: PeerName, other: PeerName): boolean {
  return one.cluster === other.cluster && one.node === other.node;
}

function mmliteUris(certificate: X509Certificate): string[] {
  return subjectNames(certificate)
    .filter(({ kind, text }) => kind === "uri" && text.toLowerCase().startsWith(SCHEME))
    .map(({ text }) => text);
}
