/**
 * Rows that await values of peers: who applies tells that there are some, who is in touch with the peer asks for them.
 */
import type { Unsent } from "../inbox/ports.ts";
import { forgetUnsent, readUnsent } from "../pg/unsent.ts";
import type { Database } from "./database.ts";

/** Of all peers. */
export class UnsentRows {
  readonly #database: Database;
  readonly #listening = new Map<string, Set<() => void>>();

  constructor(database: Database) {
    this.#database = database;
  }

  /** Rows were noted that await values of these nodes. */
  noted(nodes: ReadonlySet<string>): void {
    for (const node of nodes) for (const more of this.#listening.get(node) ?? []) more();
  }

  /** Those of one sender. */
  of(sender: string): Unsent {
    const query = this.#database.control.query(`fetch rows from node "${sender}"`);
    return {
      wanted: (limit) => readUnsent(query, sender, limit),
      forget: (row, until, isLost) => forgetUnsent(query, sender, { ...row, until, isLost }),
      listen: (more, signal) => {
        const listening = this.#listening.get(sender) ?? new Set();
        this.#listening.set(sender, listening.add(more));
        signal.addEventListener("abort", () => listening.delete(more), { once: true });
      },
    };
  }
}
