/**
 * A socket that reads into memory of ours, which is used again: what a socket makes by itself for each read is as much
 * garbage as it has read (https://nodejs.org/api/net.html, `onread`).
 */
import { Buffer } from "node:buffer";
import { Socket } from "node:net";
/** Until somebody takes over, bytes are handed out as `data`, and are few. */
const FIRST_BYTES = 0x4000;

/** Where a {@link DrawnSocket} reads into. */
export interface Basin {
  /** Where the next read may go. */
  readonly room: () => Uint8Array;
  /** So many bytes have come into the last room; `isFull` if there was no room for more. */
  readonly took: (length: number, isFull: boolean) => void;
  /** These have come elsewhere, and are good until this returns. */
  readonly push: (bytes: Uint8Array) => void;
}

/** See the module's head. */
export interface DrawnSocket {
  readonly socket: Socket;
  /** What comes from now on goes there instead of to whoever listens for `data`. */
  drawInto(basin: Basin): void;
}

/** Makes one that is not connected yet. Not for TLS, which does its own reading. */
export function makeDrawnSocket(): DrawnSocket {
  const first = new Uint8Array(FIRST_BYTES);
  let room = (): Uint8Array => first;
  let take = (length: number, bytes: Uint8Array): void =>
    void socket.emit("data", Buffer.from(bytes.subarray(0, length)));
  const socket = new Socket({
    onread: {
      buffer: () => room(),
      callback: (length, bytes) => {
        take(length, bytes);
        return true;
      },
    },
  });
  return {
    socket,
    drawInto(basin) {
      let given: Uint8Array = first;
      room = () => given = basin.room();
      take = (length, bytes) => {
        // The room that the socket has already is another.
        if (given === first) basin.push(bytes.subarray(0, length));
        else basin.took(length, length === given.length);
      };
    },
  };
}
