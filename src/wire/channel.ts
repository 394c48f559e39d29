/**
 * The byte stream that a link or an inbox talks over, whichever side dialled.
 *
 * Declared here, beneath both; `http/` provides it over one HTTP/2 stream.
 */

/** Which node something is about: what the SAN URI of a certificate says. */
export interface PeerName {
  readonly cluster: string;
  readonly node: string;
}

/** A node that has shown a certificate which is good. */
export interface ProvenPeer extends PeerName {
  /** When that certificate expires. */
  readonly expiresAt: Date;
}

/** A full-duplex stream of bytes between two nodes. */
export interface Channel {
  /** Where the other end is, for log lines and errors: an address and port. */
  readonly remote: string;
  /** Who the other end is, as its certificate proved; null on cleartext, where nobody proves anything. */
  readonly peer: ProvenPeer | null;
  /** What arrives, in order, in chunks whose bounds mean nothing. Ends when the other end ended cleanly; throws
   * an `unreachable` error when the stream broke. May be iterated once. Not reading holds the other end back. */
  readonly incoming: AsyncIterable<Uint8Array>;
  /** Sends bytes; resolves once the flow-control window has room again. The bytes must not change afterwards.
   * Throws an `unreachable` error once the stream is broken. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends our direction after what was written has gone out, and resolves then; throws an `unreachable` error where
   * that takes more than 10 s. */
  end(): Promise<void>;
  /** Breaks the stream off at once, both ways; after `end` it lets what was sent arrive first. Idempotent. A reason
   * of kind `unreachable` says that nobody is there any more, and takes the whole connection with it. */
  destroy(reason?: Error): void;
}
