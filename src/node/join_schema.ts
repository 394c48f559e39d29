/**
 * The tables of a member, created on the node that joins: as a copy with `create_schema` does it, before anything is
 * compared.
 */
import { PeerDialler } from "../http/peer_dialler.ts";
import type { SchemaItems } from "../pg/schema_items.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import { toPrintable } from "../printable.ts";
import { RemoteSide } from "../verify/remote_side.ts";
import type { Database } from "./database.ts";
import { takeSchema } from "./table_schema.ts";

/** A member that has this node as a peer, and where it is dialled. */
interface DialledMember {
  readonly name: string;
  readonly url: string;
}

interface JoinSchemaOptions {
  readonly database: Database;
  readonly tls: TlsKeys;
  /** Tells people what was done. */
  readonly say: (sentence: string) => void;
  readonly signal: AbortSignal;
}

/** How many things that were created a sentence names. */
const MAX_NAMED = 20;

/**
 * Creates what is missing here of the member's tables, which stays, whatever becomes of the join; returns what that was.
 * Throws `schema_mismatch` that names what differs.
 */
export async function createTablesOf(
  member: DialledMember,
  { database, tls, say, signal }: JoinSchemaOptions,
): Promise<readonly string[]> {
  say(`Creating what is missing here of the tables of "${member.name}"`);
  const items = await askSchema(member, { tls, signal });
  let created: readonly string[] = [];
  await takeSchema({ database, signal }, items, (_, made) => {
    created = made;
    return Promise.resolve();
  });
  const more = created.length > MAX_NAMED ? `, and ${created.length - MAX_NAMED} more` : "";
  const named = created.slice(0, MAX_NAMED).join(", ");
  say(`Created here: ${created.length === 0 ? "nothing, all is there" : toPrintable(named) + more}`);
  for (const one of items.leftOut) say(`Left out: ${toPrintable(one)}`);
  return created;
}

async function askSchema(
  { name, url }: DialledMember,
  { tls, signal }: Pick<JoinSchemaOptions, "tls" | "signal">,
): Promise<SchemaItems> {
  const { cluster, node: self } = tls.current.name;
  const dialler = new PeerDialler({ tls, self });
  try {
    const peer = { cluster, node: name };
    const remote = new RemoteSide(name, await dialler.dial(new URL(url), { peer, path: "ask", signal }));
    const breakOff = () => remote.breakOff();
    signal.addEventListener("abort", breakOff, { once: true });
    if (signal.aborted) breakOff();
    try {
      return await remote.schema();
    } finally {
      signal.removeEventListener("abort", breakOff);
      await remote.close();
    }
  } finally {
    await dialler.close();
  }
}
