/**
 * Compression of what a pusher sends after the handshake: which algorithms there are, and which one two nodes use.
 *
 * `docs/PROTOCOL.md` section 8. The streams themselves: `compressor.ts` and `decompressor.ts`.
 */
import * as zlib from "node:zlib";

/** Every algorithm that this version knows, the better first: zstd costs half of gzip's processor time. */
export const COMPRESSIONS = ["zstd", "gzip"] as const;

/** An algorithm; its name is what the handshake says. */
export type Compression = typeof COMPRESSIONS[number];

/** Those that the runtime has: Node.js has zstd from 22.15 on. */
export const AVAILABLE_COMPRESSIONS: readonly Compression[] = COMPRESSIONS.filter((name) =>
  name !== "zstd" || "createZstdCompress" in zlib
);

/**
 * How far back a compressed stream may refer, as a power of two: what a receiver keeps of what it has read, and
 * the most that a sender can make it keep. 1 MiB.
 */
const ZSTD_WINDOW_LOG = 20;

/**
 * Of pgbench's pgoutput in frames of 64 KiB, level 1 leaves 1/5.3 for 5 ms of processor time a megabyte; 3 leaves
 * no less for 9 ms, 6 as much for 21 ms.
 */
const ZSTD_LEVEL = 1;
/** Of the same, level 2 leaves 1/4.7 for 7 ms a megabyte; 1 leaves 1/3.8 for 5 ms, 6 leaves 1/5.4 for 23 ms. */
const GZIP_LEVEL = 2;

/** Bytes of a piece of output. */
const PIECE_BYTES = 0x1_0000;

/** A stream of node:zlib. */
export type ZlibStream = zlib.Gzip | zlib.ZstdCompress;

/** A stream that compresses; what is written comes out whole, and what comes later refers to it. */
export function createCompressor(compression: Compression): ZlibStream {
  const {
    Z_SYNC_FLUSH,
    ZSTD_e_flush,
    ZSTD_c_compressionLevel,
    ZSTD_c_windowLog,
  } = zlib.constants;
  switch (compression) {
    case "zstd": {
      const params = { [ZSTD_c_compressionLevel]: ZSTD_LEVEL, [ZSTD_c_windowLog]: ZSTD_WINDOW_LOG };
      return zlib.createZstdCompress({ flush: ZSTD_e_flush, chunkSize: PIECE_BYTES, params });
    }
    case "gzip":
      return zlib.createGzip({ flush: Z_SYNC_FLUSH, chunkSize: PIECE_BYTES, level: GZIP_LEVEL });
  }
}

/** A stream that decompresses, in pieces of a bounded size, and only as fast as it is read. */
export function createDecompressor(compression: Compression): ZlibStream {
  const options = { chunkSize: PIECE_BYTES, highWaterMark: PIECE_BYTES };
  switch (compression) {
    case "zstd": {
      const params = { [zlib.constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG };
      return zlib.createZstdDecompress({ ...options, params });
    }
    case "gzip":
      return zlib.createGunzip(options);
  }
}

/** The first of the sender's offers that the receiver allows; null for none, and then nothing is compressed. */
export function chooseCompression(
  offered: readonly string[],
  allowed: readonly Compression[],
): Compression | null {
  for (const name of offered) {
    const chosen = allowed.find((one) => one === name);
    if (chosen !== undefined) return chosen;
  }
  return null;
}
