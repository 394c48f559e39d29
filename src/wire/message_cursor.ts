/**
 * Walks over the messages of a data frame, without an object for each. Layout: `docs/PROTOCOL.md` section 4.4.
 */
import { MmliteError } from "../errors.ts";
import { MESSAGE_LENGTH_BYTES, readUint32 } from "./layout.ts";

/** Stands on one message of a payload at a time; before the first {@link next} on none. */
export class MessageCursor {
  /** Where the message begins in the payload. */
  start = 0;
  /** Where it ends. */
  end = 0;
  readonly #payload: Uint8Array;
  #index = 0;

  constructor(payload: Uint8Array) {
    this.#payload = payload;
  }

  /** Goes on to the next message; false if there is none. Throws `protocol` for one that runs past the payload. */
  next(): boolean {
    const at = this.end;
    const payloadLength = this.#payload.length;
    if (at >= payloadLength) return false;
    this.#index++;
    this.start = at + MESSAGE_LENGTH_BYTES;
    if (this.start > payloadLength) throw this.#overlong();
    this.end = this.start + readUint32(this.#payload, at);
    if (this.end > payloadLength) throw this.#overlong();
    return true;
  }

  #overlong(): MmliteError {
    const where = `message ${this.#index} runs past its ${this.#payload.length} bytes`;
    return new MmliteError("protocol", `Cannot read a data frame: ${where}`);
  }
}
