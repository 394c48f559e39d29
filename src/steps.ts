/**
 * A value that only grows, by the position in the WAL from which on it holds, within a bound of memory.
 *
 * Beyond the bound two steps become one, which is then off in one direction: the `upper` kind holds the later value
 * from the earlier position on, the `lower` kind from the later one.
 */
import type { Lsn } from "./lsn.ts";

/** Steps kept: at a hundred a second those of 40 s are exact, and those of an hour within some seconds. */
export const MAX_STEPS = 4_096;

/** See the module's head. */
export class Steps<Value> {
  readonly #bound: "upper" | "lower";
  #from: Lsn[] = [];
  #values: Value[] = [];

  constructor(bound: "upper" | "lower") {
    this.#bound = bound;
  }

  /** The last value; undefined before the first. */
  get last(): Value | undefined {
    return this.#values.at(-1);
  }

  /** From a position on, which is not before that of the last step, the value is this. */
  add(from: Lsn, value: Value): void {
    if (this.#from.at(-1) === from) return void (this.#values[this.#values.length - 1] = value);
    if (this.#from.length >= MAX_STEPS) this.#thin();
    this.#from.push(from);
    this.#values.push(value);
  }

  /** The value at a position, and where the next step begins; both undefined if there is none. */
  at(position: Lsn): { readonly value: Value | undefined; readonly next: Lsn | undefined } {
    let [low, high] = [0, this.#from.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#from[middle] <= position) low = middle + 1;
      else high = middle;
    }
    return { value: this.#values[low - 1], next: this.#from[low] };
  }

  #thin(): void {
    const [from, value] = this.#bound === "upper" ? [0, 1] : [1, 1];
    this.#from = this.#from.filter((_, i) => i % 2 === from);
    this.#values = this.#values.filter((_, i) => i % 2 === value);
  }
}
