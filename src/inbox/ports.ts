/**
 * What an inbox needs from the rest of the node, declared by the inbox.
 */
import type { MmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";
import type { Hello, NodeIdentity } from "../wire/frame.ts";

/** Applies one origin's transactions, in order. */
export interface TransactionSink {
  /** One verbatim pgoutput message; returns a promise only when the caller must wait. */
  push(message: Uint8Array): Promise<void> | void;
  /** Nothing more is at hand for the moment: commit what is whole. */
  flush(): void;
  close(): Promise<void>;
  /** Rejects when applying has failed. */
  readonly failed: Promise<never>;
}

/** A sender that was let in. */
export interface Admission {
  /** This node, for the Welcome. */
  readonly identity: NodeIdentity;
  /** End of the sender's last transaction that is applied here. */
  readonly resumeLsn: Lsn;
  /** Opens the apply session at that position; `onDurable` is called as transactions reach the disk. */
  readonly openSink: (onDurable: (endLsn: Lsn) => void, signal: AbortSignal) => Promise<TransactionSink>;
}

/** The rest of the node, as one receiving session sees it. */
export interface InboxPorts {
  /** Decides whether a sender may apply here; throws the error that the sender gets to see. */
  readonly admit: (hello: Hello, remote: string) => Promise<Admission>;
  /** An older session of the same sender is over when this resolves; `ended` must settle with the new one. */
  readonly supersede: (sender: string, session: { abort: () => void; ended: Promise<void> }) => Promise<void>;
  /** What a sender's session is doing, for status. */
  readonly observe: (sender: string, state: InboundState) => void;
}

/** What arrives from a sender, at the moment. */
export type InboundState =
  | { readonly name: "streaming" }
  | { readonly name: "disconnected" }
  | { readonly name: "failed"; readonly error: MmliteError };
