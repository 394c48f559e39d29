/**
 * What takes part in the bench: something that carries transactions from the source to a run's database.
 */
import type { Run } from "./bed.ts";
import type { ProcessorTime } from "./processor_time.ts";

/** Names of the rivals, as the results have them. */
export type RivalName = "builtin" | "builtin_unix" | "mmlite" | "mmlite_off" | "mmlite_zstd" | "mmlite_gzip";

/** A way to replicate. */
export interface Rival {
  readonly name: RivalName;
  /** Makes the slot of a run: everything committed from here on will be delivered to it. */
  prepare(run: Run): Promise<void>;
  /** Sets the receiving side up, all but running. */
  attach(run: Run): Promise<Link>;
}

/** A run's replication. */
export interface Link {
  /** Lets it run; returns without waiting for anything to arrive. */
  start(): Promise<void>;
  /** Processor time used so far by all that take part. */
  processorTime(): Promise<ProcessorTime>;
  /** The most memory that one process took since {@link Rival.attach}, bytes; null where that is not measured. */
  peakMemory(): number | null;
  /** Ends it and removes its slot. */
  detach(): Promise<void>;
}
