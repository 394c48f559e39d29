/**
 * Writes what a local transaction notes of its rows beside them: the versions that the commit record will not tell, and
 * what it has deleted. And before it commits, that what other sessions have committed meanwhile does not make it wrong.
 */
import type { Pipeline, ReplySink } from "../pg/pipeline.ts";
import { ORIGINS_SINCE } from "../pg/server.ts";
import { MAX_LIST_BYTES } from "../pg/tombstone_schema.ts";
import type { GoneRows } from "./gone_rows.ts";
import { int64 } from "./int64.ts";
import type { ApplySession } from "./session.ts";
import { GROUP, TOMBSTONE_RUN, TOMBSTONES, UNDISTURBED, WRITTEN } from "./transaction_statements.ts";
import type { Versions } from "./versions.ts";

/** Deleted rows of one transaction that are noted together, at most: 1 MiB. */
const MAX_DELETED = 0x1_0000;
/** Rows whose hashes are kept here, at most; those of a longer transaction are kept in the server: 768 KiB each. */
const MAX_PUT = 0x1_0000;
/** Binary booleans. */
const TRUE = new Uint8Array([1]);
const FALSE = new Uint8Array([0]);

const GROUP_SINK = sink("note the versions of a group");
const DELETED_SINK = sink("note deleted rows");
const UNDISTURBED_SINK = sink("look for deletes of others");

/** What the notes are made of and written to. */
interface Writing {
  readonly pipeline: Pipeline;
  readonly versions: Versions;
  readonly gone: GoneRows;
}

/** Used again for one local transaction after another. */
export class VersionNotes {
  readonly #pipeline: Pipeline;
  readonly #versions: Versions;
  readonly #gone: GoneRows;
  /** Whether the server keeps commit timestamps; without them rows have no versions. */
  readonly #keepsVersions: boolean;
  /** Whether it keeps their origins as well; where not, they are noted with every transaction. */
  readonly #keepsOrigins: boolean;
  /** Whether hashes of the transaction are in the server. */
  #hasWritten = false;

  constructor(session: ApplySession, { pipeline, versions, gone }: Writing) {
    this.#pipeline = pipeline;
    this.#versions = versions;
    this.#gone = gone;
    this.#keepsVersions = session.trackCommitTimestamp;
    this.#keepsOrigins = session.serverVersion >= ORIGINS_SINCE;
  }

  /** A local transaction begins. */
  begin(): void {
    this.#hasWritten = false;
  }

  /** Makes room; to be called from time to time. */
  bound(): void {
    if (this.#versions.deleted.count >= MAX_DELETED) this.#noteDeleted();
    if (this.#versions.put.count >= MAX_PUT) this.#keepWritten();
  }

  /** After the changes. With `sinceBegin` only what others have noted since the transaction began can disturb it. */
  end({ sinceBegin }: { sinceBegin: boolean }): void {
    this.#noteWritten();
    this.#noteDeleted();
    this.#requireUndisturbed(sinceBegin);
  }

  #noteWritten(): void {
    const { written, first, last, timestamps, node } = this.#versions;
    if (!this.#keepsVersions || (written.count === 0 && this.#keepsOrigins)) return;
    this.#pipeline.execute(GROUP.name, GROUP_SINK, [
      node,
      int64(first),
      int64(last),
      written.bytes(timestamps),
    ]);
    written.clear();
  }

  #noteDeleted(): void {
    const { deleted, last, timestamps, node } = this.#versions;
    if (deleted.count === 0) return;
    const entries = deleted.bytes(timestamps);
    const { name } = entries.length > MAX_LIST_BYTES ? TOMBSTONE_RUN : TOMBSTONES;
    this.#pipeline.execute(name, DELETED_SINK, [node, int64(last), entries]);
    deleted.clear();
  }

  #keepWritten(): void {
    const { put } = this.#versions;
    this.#pipeline.execute(WRITTEN.name, UNDISTURBED_SINK, [put.hashes()]);
    put.clear();
    this.#hasWritten = true;
  }

  #requireUndisturbed(sinceBegin: boolean): void {
    const { put, first, node } = this.#versions;
    const isPlain = put.count === 0 && this.#gone.isEmpty && !this.#hasWritten;
    if (!this.#keepsVersions || isPlain) return;
    this.#pipeline.execute(UNDISTURBED.name, UNDISTURBED_SINK, [
      ...[put.hashes(), int64(first)],
      ...[node, sinceBegin ? TRUE : FALSE],
    ]);
    this.#gone.lookForAll();
  }
}

function sink(doing: string): ReplySink {
  return { doing, completed: () => {} };
}
