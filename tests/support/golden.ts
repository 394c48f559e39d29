/**
 * Golden files of pgoutput, `tests/golden/pgoutput-<major>.jsonl`: what a real server of each major release sent
 * for each step of `scripts/capture_scenario.ts`, as bytes and as what they mean.
 *
 * The first line names the server; every further line is one message.
 */
import { Buffer } from "node:buffer";
import { readFile, writeFile } from "node:fs/promises";
import { formatLsn, type Lsn } from "../../src/lsn.ts";
import type { ColumnValue, Message } from "../../src/pgoutput/message.ts";
import type { PostgresMajor } from "./postgres.ts";

/** One captured message. */
export interface GoldenMessage {
  /** Title of the scenario's step that caused it. */
  readonly step: string;
  /** The payload as it came, in hexadecimal. */
  readonly hex: string;
  /** {@link goldenForm} of what it decoded to when it was captured. */
  readonly message: unknown;
}

/** What one server sent. */
export interface Golden {
  /** `server_version`, such as `18.4`. */
  readonly serverVersion: string;
  readonly messages: readonly GoldenMessage[];
}

/** A message as plain JSON: positions in PostgreSQL's form, 64-bit integers as strings, values as text. */
export function goldenForm(message: Message): unknown {
  return JSON.parse(JSON.stringify(message, (key, value) => {
    if (typeof value === "bigint") return key.endsWith("sn") ? formatLsn(value as Lsn) : String(value);
    if (key === "newTuple" || key === "oldTuple" || key === "oldKey") return value.map(valueForm);
    if (key === "content") return Buffer.from((message as { content: Uint8Array }).content).toString("hex");
    return value;
  }));
}

function valueForm(value: ColumnValue): unknown {
  switch (value.kind) {
    case "null":
      return null;
    case "unchanged":
      return { unchanged: true };
    case "text":
      return { text: Buffer.from(value.bytes).toString("utf8") };
    case "binary":
      return { binary: Buffer.from(value.bytes).toString("hex") };
  }
}

function fileOf(major: PostgresMajor): URL {
  return new URL(`../golden/pgoutput-${major}.jsonl`, import.meta.url);
}

/** Reads the golden file of a major release. */
export async function readGolden(major: PostgresMajor): Promise<Golden> {
  const [first, ...rest] = (await readFile(fileOf(major), "utf8")).trimEnd().split("\n");
  return { serverVersion: JSON.parse(first).server_version, messages: rest.map((line) => JSON.parse(line)) };
}

/** Writes the golden file of a major release. */
export async function writeGolden(major: PostgresMajor, golden: Golden): Promise<void> {
  const lines = [{ server_version: golden.serverVersion }, ...golden.messages];
  await writeFile(fileOf(major), lines.map((line) => JSON.stringify(line) + "\n").join(""));
}
