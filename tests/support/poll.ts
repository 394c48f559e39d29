/**
 * Waiting in tests: poll a condition until it holds or a deadline passes. Nothing in the tests sleeps blindly.
 */

/** How long `eventually` waits unless told, milliseconds: ample on a machine busy with other tests. */
export const EVENTUALLY_TIMEOUT_MS = 30_000;
/** Pause between two looks unless told, milliseconds. */
export const EVENTUALLY_INTERVAL_MS = 50;

interface EventuallyOptions {
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Calls `look` until it returns something truthy, and returns that. A throw counts as "not yet".
 *
 * After `timeoutMs` it throws an error that names `what` and the last value or error seen, so return the
 * interesting value as `look`'s falsy outcome wherever there is one, or throw with it.
 */
export async function eventually<T>(
  what: string,
  look: () => T | Promise<T>,
  options: EventuallyOptions = {},
): Promise<NonNullable<T>> {
  const { timeoutMs = EVENTUALLY_TIMEOUT_MS, intervalMs = EVENTUALLY_INTERVAL_MS, signal } = options;
  const deadline = performance.now() + timeoutMs;
  let seen: unknown;
  while (true) {
    try {
      const value = await look();
      if (value) return value;
      seen = value;
    } catch (thrown) {
      seen = thrown;
    }
    signal?.throwIfAborted();
    if (performance.now() >= deadline) {
      throw new Error(`Waited ${timeoutMs} ms for ${what}; last seen: ${describe(seen)}`);
    }
    await new Promise((wake) => setTimeout(wake, intervalMs));
  }
}

/** `promise`, or an error that names `what` if it has not settled within `timeoutMs`. */
export async function within<T>(what: string, timeoutMs: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Waited ${timeoutMs} ms for ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(value: unknown): string {
  if (value instanceof Error) return value.message;
  return typeof value === "object" ? Deno.inspect(value) : String(value);
}
