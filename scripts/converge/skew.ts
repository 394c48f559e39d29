/**
 * Programs that see another time than the machine's, by libfaketime (https://github.com/wolfcw/libfaketime).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Where Debian's package libfaketime puts it. */
const PLACES = ["x86_64", "aarch64"].map((machine) =>
  `/usr/lib/${machine}-linux-gnu/faketime/libfaketime.so.1`
);
const SHARED_MEMORY = "/dev/shm";

/** The path of libfaketime, or undefined where it is not installed. */
export function findFaketime(): string | undefined {
  return PLACES.find((place) => existsSync(place));
}

/** The environment under which a program sees a time that is off by so much. */
export function skewEnvironment(faketime: string, skewMs: number): Record<string, string> {
  if (skewMs === 0) return {};
  return {
    LD_PRELOAD: faketime,
    FAKETIME: `${skewMs < 0 ? "-" : "+"}${(Math.abs(skewMs) / 1000).toFixed(3)}`,
    // Both names, because the variable was renamed.
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    DONT_FAKE_MONOTONIC: "1",
  };
}

/** Removes the shared memory that libfaketime leaves behind with processes that were killed. */
export async function removeFaketimeTraces(): Promise<void> {
  for await (const { name } of Deno.readDir(SHARED_MEMORY)) {
    const pid = /^(?:sem\.)?faketime_(?:shm|sem)_([0-9]+)$/.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    await Deno.remove(join(SHARED_MEMORY, name)).catch(() => {}); // Somebody else's.
  }
}
