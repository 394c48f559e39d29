/**
 * Who may exchange rows with this node: the same cluster, another node, and the same life of its database as before.
 */
import { MmliteError } from "../errors.ts";
import { NODE_NAME, NODE_NAME_RULE } from "../node_name.ts";
import type { PeerRow } from "../pg/peers.ts";
import type { PeerName } from "../wire/channel.ts";
import type { NodeIdentity } from "../wire/frame.ts";

interface Known {
  readonly self: NodeIdentity;
  /** What is on record of the peer, if it was met before. */
  readonly row: PeerRow | undefined;
  /** The name under which the peer is expected. */
  readonly name: string;
}

/** Whoever runs there now is taken for the peer once the known one is given up. */
function remedyOf(name: string): string {
  return `If the other database was replaced on purpose, or its server was, run \`mmlite peers renew ${name}\` here ` +
    "and then as docs/OPERATIONS.md says, Fenced";
}

/** Throws `untrusted` where a certificate says other than the node itself; on cleartext there is none to ask. */
export function requireProven({ cluster, node }: NodeIdentity, proven: PeerName | null): void {
  if (proven === null || (proven.cluster === cluster && proven.node === node)) return;
  const said = (name: PeerName) => `node "${name.node}" of cluster "${name.cluster}"`;
  throw new MmliteError(
    "untrusted",
    `Cannot replicate with node "${node}": it calls itself ${
      said({ cluster, node })
    }, and its certificate is for ${said(proven)}`,
    { hint: "Start that node under the name that is in its certificate, or issue it one for its own name" },
  );
}

/** Throws `fenced`, or `conflict` for the node itself, when `other` is not who it has to be. */
export function requireKnown(other: NodeIdentity, { self, row, name }: Known): void {
  if (!NODE_NAME.test(other.node)) {
    throw new MmliteError("protocol", `Cannot replicate with a node whose name is not ${NODE_NAME_RULE}`);
  }
  if (other.incarnation === self.incarnation) {
    if (other.node !== self.node) throw fenced(name, `it runs on a copy of this node's database`);
    throw new MmliteError(
      "conflict",
      `Cannot replicate with peer "${name}": that address is this node itself`,
      {
        hint: "Give the address of the other node's peer port",
      },
    );
  }
  if (other.cluster !== self.cluster) {
    throw fenced(
      name,
      `it belongs to cluster "${other.cluster}", and this node to cluster "${self.cluster}"`,
      "Start both nodes with the same --cluster, or remove the peer",
    );
  }
  if (other.node === self.node) {
    throw fenced(
      name,
      `both nodes are called "${self.node}"`,
      "Give every node of the cluster a name of its own",
    );
  }
  if (other.node !== name) {
    throw fenced(
      name,
      `the node at that address is called "${other.node}"`,
      `Add it as "${other.node}", or correct the address`,
    );
  }
  if (row !== undefined) requireSameLife(other, row);
}

function requireSameLife(
  other: NodeIdentity,
  { name, incarnation, systemIdentifier, timeline }: PeerRow,
): void {
  if (incarnation !== null && incarnation !== other.incarnation) {
    throw fenced(
      name,
      `its database is another life of that node (${other.incarnation}, known is ${incarnation})`,
    );
  }
  if (systemIdentifier !== null && systemIdentifier !== other.systemIdentifier) {
    throw fenced(
      name,
      `it runs on another server (system identifier ${other.systemIdentifier}, known is ${systemIdentifier})`,
    );
  }
  if (timeline !== null && timeline > other.timeline) {
    throw fenced(name, `its server went back from timeline ${timeline} to ${other.timeline}`);
  }
}

function fenced(name: string, why: string, hint = remedyOf(name)): MmliteError {
  return new MmliteError("fenced", `Cannot replicate with peer "${name}": ${why}`, { hint });
}
