/**
 * Which messages of the slot go to a peer: those of local transactions that change something and that it lacks.
 *
 * Only the first byte of a message is looked at, and what Begin, Commit and Relation say; rows are never decoded. Nothing
 * is held but a copy of one Begin and the relations of dropped transactions, however long a transaction is.
 */
import { MmliteError } from "../errors.ts";
import { type Lsn, ZERO_LSN } from "../lsn.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Relation } from "../pgoutput/message.ts";
import { MessageBatch } from "../pgoutput/message_batch.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";

/** Some messages that passed, where they end, and what became of the transactions that end among them. */
export interface Filtered {
  readonly messages: MessageBatch;
  /** End of the last kept transaction that ends here; null if none does. */
  readonly endLsn: Lsn | null;
  /** Transactions passed on whole. */
  readonly local: number;
  /** Transactions dropped because they came from another node, or the peer has them. */
  readonly foreign: number;
  /** Transactions dropped because they change nothing that is published. */
  readonly empty: number;
}

/**
 * Where the stream stands. `undecided` holds Begin back until the first change; a transaction without one is
 * never passed on.
 */
type State =
  | { readonly at: "between" }
  | { readonly at: "undecided"; readonly bytes: Uint8Array; readonly start: number; readonly end: number }
  | { readonly at: "kept" }
  | { readonly at: "foreign" };

const BETWEEN: State = { at: "between" };
const KEPT: State = { at: "kept" };
const FOREIGN: State = { at: "foreign" };

/** A filter over the messages of one replication stream, from its start. Throws `protocol` for a wrong order. */
export class TransactionFilter {
  #state: State = BETWEEN;
  /**
   * Relation and Type messages of dropped transactions by type and OID, in the order of the slot: the server
   * sends each once per session, so the next kept transaction has to carry them.
   */
  readonly #owed = new Map<number, Uint8Array>();
  readonly #isCopied: (begin: Begin) => boolean;
  readonly #check: ((relation: Relation) => void) | undefined;
  #messages = new MessageBatch();
  #endLsn: Lsn | null = null;
  #droppedEndLsn: Lsn = ZERO_LSN;
  #ended = { local: 0, foreign: 0, empty: 0 };

  /** `isCopied` tells which local transactions the peer has already; `check` throws for a relation that must not pass. */
  constructor(
    { isCopied = () => false, check }: {
      isCopied?: (begin: Begin) => boolean;
      check?: (relation: Relation) => void;
    } = {},
  ) {
    this.#isCopied = isCopied;
    this.#check = check;
  }

  /** Whether the stream stands between two transactions. */
  get isBetween(): boolean {
    return this.#state.at === "between";
  }

  /** End of the last transaction that was dropped; zero before the first. */
  get droppedEndLsn(): Lsn {
    return this.#droppedEndLsn;
  }

  /** Takes the next messages of the stream and returns what may go on of them. */
  push(messages: MessageBatch): Filtered {
    this.#messages = new MessageBatch();
    this.#endLsn = null;
    this.#ended = { local: 0, foreign: 0, empty: 0 };
    for (let index = 0; index < messages.length; index++) {
      this.#take(messages.bytes(index), messages.start(index), messages.end(index));
    }
    // What it came in is used again by the time that the rest comes.
    if (this.#state.at === "undecided") {
      const { bytes, start, end } = this.#state;
      const copy = new Uint8Array(bytes.subarray(start, end));
      this.#state = { at: "undecided", bytes: copy, start: 0, end: copy.length };
    }
    return { messages: this.#messages, endLsn: this.#endLsn, ...this.#ended };
  }

  #take(bytes: Uint8Array, start: number, end: number): void {
    const type = messageType(bytes, start, end);
    switch (type) {
      case MESSAGE_TYPE.begin:
        this.#require("between", type);
        this.#state = this.#isCopied(decodeBegin(bytes, start, end))
          ? FOREIGN
          : { at: "undecided", bytes, start, end };
        break;
      case MESSAGE_TYPE.commit:
        this.#commit(bytes, start, end);
        break;
      case MESSAGE_TYPE.origin:
      // Servers up to 13 send an empty payload for an origin whose name they cannot see.
      case MESSAGE_TYPE.unnamedOrigin:
        if (this.#state.at !== "foreign") this.#require("undecided", type);
        this.#state = FOREIGN;
        break;
      case MESSAGE_TYPE.relation:
        this.#check?.(decodeMessage(bytes.subarray(start, end)) as Relation);
        this.#announce(bytes, start, end);
        break;
      case MESSAGE_TYPE.type:
        this.#announce(bytes, start, end);
        break;
      case MESSAGE_TYPE.message:
      // 18.0 to 18.6 send a stream abort although streaming is off (bug #19616).
      case MESSAGE_TYPE.streamAbort:
        break;
      default:
        this.#change(bytes, start, end);
    }
  }

  #change(bytes: Uint8Array, start: number, end: number): void {
    switch (this.#state.at) {
      case "between":
        throw outOfOrder(messageType(bytes, start, end), "between two transactions");
      case "undecided":
        this.#messages.add(this.#state.bytes, this.#state.start, this.#state.end);
        for (const message of this.#owed.values()) this.#messages.add(message);
        this.#owed.clear();
        this.#state = KEPT;
        break;
      case "foreign":
        return;
    }
    this.#messages.add(bytes, start, end);
  }

  #announce(bytes: Uint8Array, start: number, end: number): void {
    if (this.#state.at === "kept") this.#messages.add(bytes, start, end);
    else this.#owe(new Uint8Array(bytes.subarray(start, end)));
  }

  /** Keeps only the last word on each relation and type: a copy, as it outlives the chunk that it came in. */
  #owe(message: Uint8Array): void {
    const oid = new DataView(message.buffer).getUint32(1);
    const key = messageType(message) * 2 ** 32 + oid;
    this.#owed.delete(key);
    this.#owed.set(key, message);
  }

  #commit(bytes: Uint8Array, start: number, end: number): void {
    const { endLsn } = decodeCommit(bytes, start, end);
    switch (this.#state.at) {
      case "between":
        throw outOfOrder(MESSAGE_TYPE.commit, "between two transactions");
      case "kept":
        this.#messages.add(bytes, start, end);
        this.#endLsn = endLsn;
        this.#ended.local++;
        break;
      case "undecided":
        this.#droppedEndLsn = endLsn;
        this.#ended.empty++;
        break;
      case "foreign":
        this.#droppedEndLsn = endLsn;
        this.#ended.foreign++;
    }
    this.#state = BETWEEN;
  }

  #require(at: State["at"], type: number): void {
    if (this.#state.at !== at) throw outOfOrder(type, "inside a transaction");
  }
}

function outOfOrder(type: number, where: string): MmliteError {
  return new MmliteError("protocol", `Cannot follow the slot: message 0x${type.toString(16)} came ${where}`);
}
