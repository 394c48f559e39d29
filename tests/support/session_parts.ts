/**
 * What a session is given in tests: identities, and a slot and a database that a test drives by hand.
 */
import type { Unsent } from "../../src/inbox/ports.ts";
import { type Lsn, toLsn } from "../../src/lsn.ts";
import type { Source, SourceBatch } from "../../src/pgoutput/source.ts";
import { type Hello, type NodeIdentity, PROTOCOL_VERSION, type Welcome } from "../../src/wire/frame.ts";
import { batchOf } from "./message_batch.ts";

/** The node that sends. */
export const SENDER: NodeIdentity = {
  cluster: "eu",
  node: "fra",
  incarnation: "11111111-1111-4111-8111-111111111111",
  systemIdentifier: "7000000000000000001",
  timeline: 1,
  serverVersion: 180004,
  program: "0.1.0",
};

/** The node that receives. */
export const RECEIVER: NodeIdentity = {
  ...SENDER,
  node: "ams",
  incarnation: "22222222-2222-4222-8222-222222222222",
};

/** The sender's first frame: acked up to 100, WAL up to 500. */
export function hello(parts: Partial<Hello> = {}): Hello {
  return {
    kind: "hello",
    protocol: PROTOCOL_VERSION,
    identity: SENDER,
    receiver: RECEIVER.node,
    url: null,
    slotLsn: toLsn(50n),
    ackedLsn: toLsn(100n),
    walLsn: toLsn(500n),
    compression: [],
    policies: null,
    ...parts,
  };
}

/** The receiver's answer: it stands at 100. */
export function welcome(parts: Partial<Welcome> = {}): Welcome {
  return {
    kind: "welcome",
    protocol: PROTOCOL_VERSION,
    identity: RECEIVER,
    resumeLsn: toLsn(100n),
    copied: null,
    dialsBack: true,
    binaryTypes: [],
    compression: null,
    policies: null,
    ...parts,
  };
}

/** No row awaits values of the sender. */
export const NOTHING_UNSENT: Unsent = {
  wanted: () => Promise.resolve([]),
  forget: () => Promise.resolve(),
  listen: () => {},
};

/** A slot that yields what the test puts into it. */
export class TestSource implements Source {
  readonly confirmed: Lsn[] = [];
  closed = false;
  readonly #batches: SourceBatch[] = [];
  #failure: Error | undefined;
  #wake: () => void = () => {};

  /** One transaction with these messages. */
  put(endLsn: bigint, ...messages: Uint8Array[]): void {
    this.#batches.push({ messages: batchOf(messages), endLsn: toLsn(endLsn), walEnd: toLsn(endLsn) });
    this.#wake();
  }

  /** Nothing up to here is for the peer. */
  pass(walEnd: bigint): void {
    this.#batches.push({ messages: batchOf([]), endLsn: null, walEnd: toLsn(walEnd) });
    this.#wake();
  }

  fail(failure: Error): void {
    this.#failure = failure;
    this.#wake();
  }

  async *batches(): AsyncGenerator<SourceBatch> {
    while (!this.closed) {
      if (this.#failure !== undefined) throw this.#failure;
      const batch = this.#batches.shift();
      if (batch !== undefined) yield batch;
      else await new Promise<void>((resolve) => void (this.#wake = resolve));
    }
  }

  confirm(ackedLsn: Lsn): void {
    this.confirmed.push(ackedLsn);
  }

  close(): Promise<void> {
    this.closed = true;
    this.#wake();
    return Promise.resolve();
  }
}
