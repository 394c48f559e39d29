/**
 * How much memory V8 may take in an executable.
 */

/**
 * Limits of V8's heap, MB, of which about 40 are in use at most: without them it lets 64 MB of short-lived objects pile
 * up, and grows fourfold before it collects the others. Values of rows lie outside of it. A semi-space of full size
 * from the beginning makes a start a tenth faster. Buffers count as heap when V8 decides to collect, so that with some
 * 15 MB of objects it would mark them all for every 10 MB that pass through: at two and a half times the objects it
 * takes half the processor time for long values.
 */
export const HEAP_LIMITS: readonly string[] = [
  "--min-semi-space-size=2",
  "--max-semi-space-size=2",
  "--max-old-space-size=256",
  "--heap-growing-percent=150",
];
