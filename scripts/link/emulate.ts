/**
 * The program between the two ends of an emulated link: reads packets from each of two TUN devices and writes them
 * to the other, later, or never.
 *
 * `deno run -A scripts/link/emulate.ts NAME NAME JSON`, with the `PathOptions` of the direction from the first
 * device to the second and back as an array. It makes the devices, prints a line, and goes on until it is killed;
 * the devices go with it. While it is stopped (SIGSTOP) everything on the link is lost and nobody is told.
 */
import { Path, type PathOptions } from "./path.ts";
import { openTun, type Tun, waitForPacket } from "./tun.ts";

/** What a device is read into: its MTU is no larger. */
const PACKET_BYTES = 2048;
/** Packets taken from one device in a row, before those that are due go out. */
const BURST = 64;
/** Packets of a direction that may be on their way, of 1,500 bytes 650 ms of 300 Mbit/s; one on top is lost. */
const MAX_UNDER_WAY = 16_384;
/** One slot is always free to read into. */
const SLOTS = MAX_UNDER_WAY + 1;
/** Longest time without looking, milliseconds. */
const MAX_WAIT_MS = 1_000;

/** Packets on their way in one direction, in a ring: they arrive in the order in which they were sent. */
class Direction {
  readonly #from: Tun;
  readonly #to: Tun;
  readonly #path: Path;
  readonly #packets = Array.from({ length: SLOTS }, () => new Uint8Array(PACKET_BYTES));
  readonly #lengths = new Uint32Array(SLOTS);
  readonly #arrivals = new Float64Array(SLOTS);
  #first = 0;
  #count = 0;

  constructor(from: Tun, to: Tun, options: PathOptions) {
    this.#from = from;
    this.#to = to;
    this.#path = new Path(options);
  }

  /** When the next packet arrives. */
  get nextArrival(): number {
    return this.#count === 0 ? Infinity : this.#arrivals[this.#first];
  }

  take(now: number): void {
    for (let taken = 0; taken < BURST; taken++) {
      const slot = (this.#first + this.#count) % SLOTS;
      const length = this.#from.read(this.#packets[slot]);
      if (length === 0) return;
      const arrival = this.#path.send(length, now);
      if (arrival === null || this.#count === MAX_UNDER_WAY) continue;
      this.#lengths[slot] = length;
      this.#arrivals[slot] = arrival;
      this.#count++;
    }
  }

  deliver(now: number): void {
    while (this.nextArrival <= now) {
      this.#to.write(this.#packets[this.#first].subarray(0, this.#lengths[this.#first]));
      this.#first = (this.#first + 1) % SLOTS;
      this.#count--;
    }
  }
}

const [left, right, shape] = Deno.args;
const [there, back]: [PathOptions, PathOptions] = JSON.parse(shape);
// JSON has no Infinity.
const unbounded = (options: PathOptions) => ({ ...options, megabits: options.megabits ?? Infinity });
const tuns = [openTun(left), openTun(right)];
const directions = [
  new Direction(tuns[0], tuns[1], unbounded(there)),
  new Direction(tuns[1], tuns[0], unbounded(back)),
];
const wait = waitForPacket(tuns);
console.log("ready");
for (;;) {
  const now = performance.now();
  for (const direction of directions) {
    direction.deliver(now);
    direction.take(now);
  }
  const next = Math.min(...directions.map(({ nextArrival }) => nextArrival));
  wait(Math.min(MAX_WAIT_MS, next - performance.now()));
}
