/**
 * The byte stream that a link or an inbox talks over, whichever side dialled.
 *
 * Declared here, beneath both; `http/` provides it over one HTTP/2 stream.
 */

/** A full-duplex stream of bytes between two nodes. */
export interface Channel {
  /** Where the other end is, for log lines and errors: an address and port. */
  readonly remote: string;
  /** What arrives, in order, in chunks whose bounds mean nothing. Ends when the other end ended cleanly; throws
   * an `unreachable` error when the stream broke. May be iterated once. Not reading holds the other end back. */
  readonly incoming: AsyncIterable<Uint8Array>;
  /** Sends bytes; resolves once the flow-control window has room again. The bytes must not change afterwards.
   * Throws an `unreachable` error once the stream is broken. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends our direction after what was written has gone out, and resolves then. */
  end(): Promise<void>;
  /** Breaks the stream off at once, both ways; after `end` it lets what was sent arrive first. Idempotent. */
  destroy(reason?: Error): void;
}
