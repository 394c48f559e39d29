/**
 * HTTP/2 by hand (RFC 9113), for tests that send what no library would, and that must see every byte of the answer.
 */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Frame types (RFC 9113, section 6). */
export const TYPE = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  continuation: 9,
} as const;
/** DATA and HEADERS: nothing follows on the stream. */
export const END_STREAM = 1;
/** HEADERS: no CONTINUATION follows. */
export const END_HEADERS = 4;

/** One frame. */
export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** The bytes of a frame. */
export function rawFrame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** What a client sends first: preface and empty settings. */
export function opening(): Buffer {
  return Buffer.concat([PREFACE, rawFrame(TYPE.settings, 0, 0)]);
}

/** A HEADERS frame that asks for `path`, with names and values as literals (RFC 7541). */
export function request(
  stream: number,
  { method = "POST", path, flags = 0, headers = {} }: {
    method?: "GET" | "POST";
    path: string;
    /** Besides END_HEADERS. */
    flags?: number;
    headers?: Readonly<Record<string, string>>;
  },
): Buffer {
  const block = Buffer.concat([
    // Of the static table: method, scheme https, and the names :path and :authority.
    Buffer.from([method === "GET" ? 0x82 : 0x83, 0x87, 0x04]),
    text(path),
    Buffer.from([0x01]),
    text("peer"),
    ...Object.entries(headers).flatMap(([name, value]) => [Buffer.from([0x00]), text(name), text(value)]),
  ]);
  return rawFrame(TYPE.headers, END_HEADERS | flags, stream, block);
}

/** A string of at most 126 bytes, not Huffman-coded. */
function text(value: string): Buffer {
  return Buffer.concat([Buffer.from([value.length]), Buffer.from(value, "latin1")]);
}

/** A stretch of bytes as DATA frames of the size that everybody takes. */
export function dataFrames(stream: number, bytes: Uint8Array): Buffer {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 16_384) {
    frames.push(rawFrame(TYPE.data, 0, stream, bytes.subarray(at, at + 16_384)));
  }
  return Buffer.concat(frames);
}

/** A connection, and everything that has come over it. */
export interface RawConnection {
  readonly socket: net.Socket;
  /** All bytes that arrived, after TLS. */
  received(): Buffer;
  /** The frames among them; empty if they are none. */
  frames(): RawFrame[];
  /** How it ended: the code of the error, or "closed"; undefined while it is open. */
  ended(): string | undefined;
}

/** Connects, over TLS if options are given; resolves when bytes can be sent, or when it has failed. */
export async function connectRaw(port: number, options?: tls.ConnectionOptions): Promise<RawConnection> {
  const socket = options === undefined
    ? net.connect(port, "127.0.0.1")
    : tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"], ...options });
  const chunks: Buffer[] = [];
  let end: string | undefined;
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", (error: NodeJS.ErrnoException) => end ??= error.code ?? error.message);
  socket.on("close", () => end ??= "closed");
  const ready = once(socket, options === undefined ? "connect" : "secureConnect");
  await Promise.race([ready, once(socket, "close")]).catch(() => {});
  const received = () => Buffer.concat(chunks);
  return { socket, received, frames: () => splitFrames(received()), ended: () => end };
}

function splitFrames(bytes: Buffer): RawFrame[] {
  const frames: RawFrame[] = [];
  for (let at = 0; at + 9 <= bytes.length;) {
    const length = bytes.readUIntBE(at, 3);
    if (at + 9 + length > bytes.length) break;
    frames.push({
      type: bytes[at + 3],
      flags: bytes[at + 4],
      stream: bytes.readUInt32BE(at + 5),
      payload: bytes.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return frames;
}
