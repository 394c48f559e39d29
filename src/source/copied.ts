/**
 * Which local transactions a peer has already, because it copied this node's rows as of a snapshot that saw them.
 */
import type { CopiedFrom } from "../wire/frame.ts";
import type { Begin } from "../pgoutput/message.ts";

/** Transaction ids with the same 32 bits are this far apart. */
const EPOCH = 1n << 32n;

/** Tells of a transaction by its beginning whether the snapshot saw it. */
export function copiedIn({ snapshot, until }: CopiedFrom): (begin: Begin) => boolean {
  const [lowest, next, running] = snapshot.split(":");
  const [xmin, xmax] = [BigInt(lowest), BigInt(next)];
  const underWay = new Set(running === "" ? [] : running.split(",").map(BigInt));
  return ({ commitLsn, xid }) => {
    // What begins to commit behind it, the snapshot cannot have seen; only up to there are 32 bits enough, too.
    if (commitLsn >= until) return false;
    const id = nearest(xid, xmax);
    return id < xmin || (id < xmax && !underWay.has(id));
  };
}

/** Of the ids with these 32 bits the one that is nearest to another id. */
function nearest(xid: number, to: bigint): bigint {
  const id = (to & ~(EPOCH - 1n)) | BigInt(xid);
  if (id > to + EPOCH / 2n) return id - EPOCH;
  return id + EPOCH / 2n < to ? id + EPOCH : id;
}
