/**
 * Arrays of numbers that grow.
 */

/** A copy with room for twice as many. */
export function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}
