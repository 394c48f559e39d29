/** Compressed streams against `docs/PROTOCOL.md` section 8: round trips, every chop, bombs, noise, cuts, closing. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import * as zlib from "node:zlib";
import fc from "fast-check";
import { within } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import { AVAILABLE_COMPRESSIONS, chooseCompression, type Compression, COMPRESSIONS } from "./compression.ts";
import { openFrameWriter } from "./compressor.ts";
import { openChunkReader } from "./decompressor.ts";

const MIB = 0x10_0000;

/** What `frames` become on the channel, as a list for each. */
async function compress(
  frames: readonly Uint8Array[],
  compression: Compression | null,
): Promise<Uint8Array[][]> {
  const sent: Uint8Array[][] = [];
  const writer = openFrameWriter((bytes) => Promise.resolve(void sent.at(-1)!.push(bytes)), compression);
  for (const frame of frames) {
    sent.push([]);
    await writer.write(frame);
  }
  writer.close();
  return sent;
}

function readerOf(chunks: Iterable<Uint8Array>, compression: Compression | null) {
  async function* arriving() {
    yield* chunks;
  }
  return openChunkReader(arriving(), { compression, remote: "sender:7432" });
}

async function readAll(chunks: Iterable<Uint8Array>, compression: Compression | null): Promise<Buffer> {
  const reader = readerOf(chunks, compression);
  const pieces: Uint8Array[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.next();
      if (done) return Buffer.concat(pieces);
      pieces.push(value);
    }
  } finally {
    reader.close();
  }
}

async function isProtocolError(reading: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(reading, (error) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, "protocol");
    assert.match(error.message, message);
    return true;
  });
}

function chop(stream: Buffer, cuts: readonly number[]): Buffer[] {
  const bounds = [0, ...cuts.map((cut) => cut % (stream.length + 1)).sort((a, b) => a - b), stream.length];
  return bounds.slice(1).map((end, index) => stream.subarray(bounds[index], end)).filter(({ length }) =>
    length
  );
}

/** What somebody else's compressor makes of some bytes, with the largest window that is allowed. */
function compressElsewhere(bytes: Uint8Array, compression: Compression): Buffer {
  if (compression === "gzip") return zlib.gzipSync(bytes);
  return zlib.zstdCompressSync(bytes, { params: { [zlib.constants.ZSTD_c_windowLog]: 20 } });
}

const ZEROS = Buffer.alloc(MIB);

/** A few kilobytes that become many megabytes. */
function bomb(compression: Compression, megabytes: number): Buffer {
  return compressElsewhere(Buffer.alloc(megabytes * MIB), compression);
}

/** Bytes that do not compress. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 0x1_0000) crypto.getRandomValues(bytes.subarray(at, at + 0x1_0000));
  return bytes;
}

Deno.test("this runtime has every algorithm", () => {
  assert.deepEqual(AVAILABLE_COMPRESSIONS, COMPRESSIONS);
});

Deno.test("the sender's first offer that the receiver allows is chosen", () => {
  assert.equal(chooseCompression(["zstd", "gzip"], ["zstd", "gzip"]), "zstd");
  assert.equal(chooseCompression(["gzip", "zstd"], ["zstd", "gzip"]), "gzip");
  assert.equal(chooseCompression(["zstd", "gzip"], ["gzip"]), "gzip");
  assert.equal(chooseCompression(["lz9", "gzip"], ["zstd", "gzip"]), "gzip");
  assert.equal(chooseCompression(["lz9"], ["zstd", "gzip"]), null);
  assert.equal(chooseCompression([], ["zstd"]), null);
  assert.equal(chooseCompression(["zstd"], []), null);
});

Deno.test("without compression bytes pass as they are", async () => {
  const frame = Buffer.from("frame");
  const [[sent]] = await compress([frame], null);
  assert.equal(sent, frame);
  const reader = readerOf([frame], null);
  assert.equal((await reader.next()).value, frame);
});

for (const compression of COMPRESSIONS) {
  Deno.test(`${compression}: frames come out as they went in, chopped anywhere`, async () => {
    const piece = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.tuple(fc.integer({ min: 1, max: 300_000 }), fc.nat(255)).map(([length, byte]) =>
        Buffer.alloc(length, byte)
      ),
      fc.integer({ min: 1, max: 300_000 }).map(noise),
    );
    const frames = fc.array(piece, { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(frames, fc.array(fc.nat(), { maxLength: 10 }), async (frames, cuts) => {
        const sent = Buffer.concat((await compress(frames, compression)).flat());
        const received = await readAll(chop(sent, cuts), compression);
        assert(received.equals(Buffer.concat(frames)));
      }),
      { numRuns: 60 },
    );
  });

  Deno.test(`${compression}: each frame arrives whole before the next is written`, async () => {
    const frames = Array.from(
      { length: 50 },
      (_, index) => Buffer.from(`transaction ${index} of a few bytes`),
    );
    const sent = await compress(frames, compression);
    const arriving = sent.values();
    let given = 0;
    const reader = openChunkReader({
      next: () => {
        given++;
        const { value, done } = arriving.next();
        return Promise.resolve(done ? { value: undefined, done } : { value: Buffer.concat(value), done });
      },
    }, { compression, remote: "sender" });
    for (const [index, frame] of frames.entries()) {
      assert(frame.equals((await reader.next()).value!));
      assert.equal(given, index + 1);
    }
    reader.close();
    // Later frames refer to earlier ones: that is why the stream is one.
    const bytes = Buffer.concat(sent.slice(1).flat()).length;
    assert(bytes < 49 * 36 * 0.6, `${bytes} bytes for 49 frames`);
  });

  Deno.test(`${compression}: frames that are written at a time go out in order`, async () => {
    const sent: Uint8Array[] = [];
    const writer = openFrameWriter(async (bytes) => {
      await new Promise((wake) => setTimeout(wake, 1));
      sent.push(bytes);
    }, compression);
    const frames = Array.from({ length: 20 }, (_, index) => Buffer.from(`frame ${index};`));
    await Promise.all(frames.map((frame) => writer.write(frame)));
    writer.close();
    assert.equal((await readAll(sent, compression)).toString(), Buffer.concat(frames).toString());
  });

  Deno.test(`${compression}: a writer waits until what it sends has room`, async () => {
    const room = Promise.withResolvers<void>();
    let sent = 0;
    const writer = openFrameWriter(async (bytes) => {
      sent += bytes.length;
      await room.promise;
    }, compression);
    const first = writer.write(noise(1000));
    const second = writer.write(noise(1000));
    await assert.rejects(within("the write", 50, first));
    assert(sent > 0 && sent < 1100, `${sent}`);
    room.resolve();
    await Promise.all([first, second]);
    assert(sent > 2000);
    writer.close();
  });

  Deno.test(`${compression}: a stream that grows a thousandfold is held back like any other`, async () => {
    const chunk = bomb(compression, 256);
    assert(chunk.length < MIB);
    const before = process.memoryUsage().rss;
    const reader = readerOf([chunk], compression);
    let read = 0;
    let most = 0;
    for (let looks = 0; looks < 64; looks++) {
      const { value } = await reader.next();
      read += value!.length;
      most = Math.max(most, value!.length);
      // Whoever decompresses ahead of its reader has the time to do it here.
      await new Promise((wake) => setTimeout(wake, 2));
    }
    assert(most <= 2 * 0x1_0000, `a piece of ${most} bytes`);
    assert(read <= 64 * most);
    const grown = process.memoryUsage().rss - before;
    assert(grown < 32 * MIB, `${grown} bytes more than before, after ${read} of ${256 * MIB}`);
    reader.close();
  });

  Deno.test(`${compression}: the whole of a bomb passes through without staying`, async () => {
    // Far more than the garbage of this process that V8 has not collected yet.
    const mebibytes = 1024;
    const zeros = Array.from({ length: mebibytes }, () => ZEROS);
    const chunk = Buffer.concat((await compress(zeros, compression)).flat());
    const before = process.memoryUsage().rss;
    const reader = readerOf(chop(chunk, [1, 1000, 10_000]), compression);
    let read = 0;
    while (read < mebibytes * MIB) read += (await reader.next()).value!.length;
    assert.equal(read, mebibytes * MIB);
    const grown = process.memoryUsage().rss - before;
    assert(grown < mebibytes / 4 * MIB, `${grown} bytes more than before`);
    reader.close();
  });

  Deno.test(`${compression}: noise, and a stream that was changed on its way, are protocol errors`, async () => {
    await isProtocolError(
      readAll([noise(1000)], compression),
      new RegExp(`^Cannot decompress what sender:7432 sends in ${compression}: \\w`),
    );
    const frames = Array.from({ length: 20 }, (_, index) => Buffer.from(`row ${index} `.repeat(100)));
    const sent = Buffer.concat((await compress(frames, compression)).flat());
    await fc.assert(
      fc.asyncProperty(fc.nat(sent.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const changed = Buffer.from(sent);
        changed[at] ^= change;
        // A changed literal goes unnoticed here; the frames have bounds of their own, and TCP and TLS have sums.
        await readAll([changed], compression).catch((error) => {
          assert(error instanceof MmliteError && error.kind === "protocol", String(error));
        });
      }),
      { numRuns: 200 },
    );
  });

  Deno.test(`${compression}: what comes after an error fails alike`, async () => {
    const reader = readerOf([noise(1000), noise(1000)], compression);
    await isProtocolError(reader.next(), /^Cannot decompress/);
    await isProtocolError(reader.next(), /^Cannot decompress/);
    reader.close();
  });

  Deno.test(`${compression}: a stream that goes on after its own end is a protocol error`, async () => {
    const ended = compressElsewhere(Buffer.from("frame"), compression);
    const reader = readerOf([ended, noise(100)], compression);
    assert.equal(Buffer.from((await reader.next()).value!).toString(), "frame");
    await isProtocolError(reader.next(), /^Cannot decompress/);
    reader.close();
  });

  Deno.test(`${compression}: a stream cut anywhere yields what came whole, and ends`, async () => {
    const frames = Array.from({ length: 5 }, () => noise(100));
    const sent = await compress(frames, compression);
    const stream = Buffer.concat(sent.flat());
    const whole = Buffer.concat(frames);
    for (let cut = 0; cut <= stream.length; cut++) {
      const received = await readAll(chop(stream.subarray(0, cut), []), compression);
      assert(received.equals(whole.subarray(0, received.length)));
      const arrived = sent.findIndex((_, index) =>
        Buffer.concat(sent.slice(0, index + 1).flat()).length > cut
      );
      assert(received.length >= (arrived < 0 ? 5 : arrived) * 100, `${received.length} after ${cut}`);
    }
  });

  Deno.test(`${compression}: a break of the connection is passed on as it is`, async () => {
    const broken = new MmliteError("unreachable", "Cannot read from sender");
    const [sent] = await compress([noise(100)], compression);
    async function* arriving() {
      yield* sent;
      throw broken;
    }
    const reader = openChunkReader(arriving(), { compression, remote: "sender" });
    assert.equal((await reader.next()).value!.length, 100);
    await assert.rejects(reader.next(), broken);
    reader.close();
  });

  Deno.test(`${compression}: closing ends a write and a read that are under way`, async () => {
    const writer = openFrameWriter(() => Promise.resolve(), compression);
    const writing = Promise.allSettled([writer.write(noise(4 * MIB)), writer.write(noise(10))]);
    writer.close();
    writer.close();
    await within("the writes to end", 5_000, writing);
    await assert.rejects(writer.write(noise(10)), { kind: "unreachable" });
    const reader = readerOf([bomb(compression, 64)], compression);
    await reader.next();
    const reading = (async () => {
      while (!(await reader.next()).done);
    })();
    reader.close();
    reader.close();
    await within("the reads to end", 5_000, isProtocolError(reading, /it is closed/));
  });

  Deno.test(`${compression}: a writer that cannot send says why`, async () => {
    const broken = new MmliteError("unreachable", "Cannot write to receiver");
    const writer = openFrameWriter(() => Promise.reject(broken), compression);
    await assert.rejects(writer.write(noise(10)), broken);
    writer.close();
  });
}

Deno.test("zstd: a window beyond the bound is refused before memory is taken for it", async () => {
  const params = { [zlib.constants.ZSTD_c_windowLog]: 27 };
  const stream = zlib.createZstdCompress({ params, flush: zlib.constants.ZSTD_e_flush });
  const first = Promise.withResolvers<Uint8Array>();
  stream.once("data", first.resolve).write(Buffer.from("frame"));
  await isProtocolError(readAll([await first.promise], "zstd"), /memory|window/i);
  stream.destroy();
});
