/**
 * Keeps one transaction instead of applying it: its messages go into `mmlite.quarantine_change` as they come, in the
 * local transaction that moves the position past it.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import type { Pipeline, ReplySink } from "../pg/pipeline.ts";
import type { KeptKind } from "../pg/quarantine.ts";
import type { StatementText } from "../pg/query_bytes.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Relation, Truncate } from "../pgoutput/message.ts";
import { textMessage } from "../pgoutput/text_form.ts";
import { changeKindOf } from "./change_kind.ts";

const TEXT_OID = 25;
const INT8_OID = 20;
const BYTEA_OID = 17;
const PG_LSN_OID = 3220;
const TIMESTAMPTZ_OID = 1184;

const BEGIN: StatementText = {
  name: "keep_begin",
  sql: "SELECT mmlite.begin_quarantine($1, $2, $3)",
  parameterTypes: [TEXT_OID, PG_LSN_OID, TIMESTAMPTZ_OID],
};
const KEEP: StatementText = {
  name: "keep",
  sql: `INSERT INTO mmlite.quarantine_change (quarantine_id, number, kind, table_name, message)
    VALUES (pg_catalog.current_setting('mmlite.quarantine')::bigint, $1, $2, $3, $4)`,
  parameterTypes: [INT8_OID, TEXT_OID, TEXT_OID, BYTEA_OID],
};
const END: StatementText = {
  name: "keep_end",
  sql: `UPDATE mmlite.quarantine SET end_lsn = $1, changes = $2
    WHERE id = pg_catalog.current_setting('mmlite.quarantine')::bigint`,
  parameterTypes: [PG_LSN_OID, INT8_OID],
};

interface Announced {
  readonly label: string;
  readonly message: Uint8Array;
  /** OIDs of its columns' types there. */
  readonly types: readonly number[];
  isKept: boolean;
}

/** See the module's head. */
export class QuarantineWriter {
  readonly #pipeline: Pipeline;
  readonly #origin: string;
  /** Relations by the sender's id, as announced last. */
  readonly #relations = new Map<number, Announced>();
  #number = 0;
  #changes = 0;

  constructor(pipeline: Pipeline, origin: string) {
    this.#pipeline = pipeline;
    this.#origin = origin;
  }

  /** Takes note of a Relation message, whose bytes it copies. */
  announce({ relationId, schema, name, columns }: Relation, message: Uint8Array): void {
    this.#relations.set(relationId, {
      label: `${schema}.${name}`,
      message: message.slice(),
      types: columns.map(({ typeOid }) => typeOid),
      isKept: false,
    });
  }

  /** Begins to keep a transaction, inside a local one. */
  begin({ commitLsn, commitTimestamp }: Begin): void {
    for (const statement of [BEGIN, KEEP, END]) this.#pipeline.prepare(statement);
    const parameters = [Buffer.from(this.#origin, "utf8"), int64(commitLsn), int64(commitTimestamp)];
    this.#pipeline.execute(BEGIN.name, sink(`put ${formatLsn(commitLsn)} into quarantine`), parameters);
  }

  /** Keeps a change, its values as text, and before the first of its relations what announces them. */
  keep(message: Uint8Array): void {
    const kind = changeKindOf(message[0]);
    const relations = relationIds(message).map((id) => this.#relation(id));
    for (const relation of relations) {
      if (relation.isKept) continue;
      relation.isKept = true;
      this.#write("relation", relation.label, relation.message);
    }
    this.#changes++;
    const kept = kind === "truncate" ? message : textMessage(message, relations[0].types);
    this.#write(kind, relations.map(({ label }) => label).join(", "), kept);
  }

  /** Ends it; the local transaction is to be committed next. */
  end(endLsn: Lsn): void {
    this.#pipeline.execute(END.name, sink("end a transaction in quarantine"), [
      int64(endLsn),
      int64(BigInt(this.#changes)),
    ]);
  }

  #write(kind: KeptKind, label: string, message: Uint8Array): void {
    const parameters = [int64(BigInt(++this.#number)), Buffer.from(kind), Buffer.from(label), message];
    this.#pipeline.execute(KEEP.name, sink(`put a change of "${label}" into quarantine`), parameters);
  }

  #relation(id: number): Announced {
    const relation = this.#relations.get(id);
    if (relation !== undefined) return relation;
    throw new MmliteError("protocol", `Cannot keep a change: relation ${id} was never announced`);
  }
}

/** The relations that a change is of; decoding checks it whole. */
function relationIds(message: Uint8Array): readonly number[] {
  const change = decodeMessage(message) as { relationId: number } | Truncate;
  return "relationIds" in change ? change.relationIds : [change.relationId];
}

function sink(doing: string): ReplySink {
  return { doing, completed: () => {} };
}

function int64(value: bigint): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
}
