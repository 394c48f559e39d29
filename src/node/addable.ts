/**
 * Which name and address a new peer may have, as far as this node can tell without asking anybody.
 */
import { type PeerSecurity, requireSafeUrl } from "../config/peer_url.ts";
import { MmliteError } from "../errors.ts";
import { slotName } from "../pg/slots.ts";

/** A peer's name and where it is dialled. */
interface Place {
  readonly name: string;
  readonly url: string | null;
}

interface Surroundings {
  /** This node's name. */
  readonly self: string;
  /** Addresses at which this node itself listens or is advertised. */
  readonly ownUrls: readonly string[];
  readonly peers: readonly Place[];
  /** What this node has to protect connections with. */
  readonly security: PeerSecurity;
}

/**
 * Throws `conflict` for this node itself, for a name whose slot is taken, and for another peer's address; `config`
 * for one that must not be dialled as this node is set up.
 */
export function requireAddable(
  { name, url }: Place,
  { self, ownUrls, peers, security }: Surroundings,
): void {
  if (url !== null) requireSafeUrl(url, security);
  if (name === self) {
    throw refused(name, "that is this node itself", "Name the other node and give its address");
  }
  if (ownUrls.some((own) => sameAddress(own, url))) {
    throw refused(
      name,
      `${url} is this node's own address`,
      "Give the address of the other node's peer port",
    );
  }
  const taken = [self, ...peers.map((peer) => peer.name)].find((other) =>
    other !== name && slotName(other) === slotName(name)
  );
  if (taken !== undefined) {
    throw refused(
      name,
      `its slot name is taken by "${taken}"`,
      "Choose a name that differs in more than - and _",
    );
  }
  const twice = peers.find((peer) => peer.name !== name && sameAddress(peer.url, url));
  if (twice !== undefined) {
    throw refused(
      name,
      `${url} is already peer "${twice.name}"`,
      `Give the address of node "${name}", or remove peer "${twice.name}" first`,
    );
  }
}

function refused(name: string, why: string, hint: string): MmliteError {
  return new MmliteError("conflict", `Cannot add peer "${name}": ${why}`, { hint });
}

function sameAddress(a: string | null, b: string | null): boolean {
  const [left, right] = [URL.parse(a ?? ""), URL.parse(b ?? "")];
  return left !== null && right !== null && left.host === right.host;
}
