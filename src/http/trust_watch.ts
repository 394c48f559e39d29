/**
 * Connections whose certificate is good no longer: it has expired, or its authority is trusted no more. They are broken
 * off; those whose certificate was merely replaced by a newer one stay.
 */
import type { X509Certificate } from "node:crypto";
import type { Connection } from "./connection.ts";
import { cannotGoOn } from "./dial_errors.ts";
import { isStillGood, type KeySource } from "./trust.ts";

/** How often the clock is held against the certificates of those connected, milliseconds. */
const LOOK_INTERVAL_MS = 60_000;

/** Looks at the certificates of open connections when the authorities change, and as time goes by. */
export class TrustWatch {
  readonly #keys: KeySource | null;
  readonly #chains = new Map<Connection, readonly X509Certificate[]>();
  readonly #forgetKeys: () => void;
  readonly #timer: ReturnType<typeof setInterval> | undefined;

  /** Without keys there is nothing to watch. */
  constructor(keys: KeySource | null) {
    this.#keys = keys;
    this.#forgetKeys = keys?.onChange(() => this.#look()) ?? (() => {});
    if (keys !== null) this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
  }

  /** Watches a connection, whose other end has shown `chain`, until it closes. */
  watch(connection: Connection, chain: readonly X509Certificate[]): void {
    this.#chains.set(connection, chain);
    connection.session.once("close", () => this.#chains.delete(connection));
  }

  close(): void {
    this.#forgetKeys();
    clearInterval(this.#timer);
  }

  #look(): void {
    if (this.#keys === null) return;
    const { authorities } = this.#keys.current;
    for (const [connection, chain] of this.#chains) {
      if (!isStillGood(chain, authorities)) connection.breakOff(cannotGoOn(connection));
    }
  }
}
