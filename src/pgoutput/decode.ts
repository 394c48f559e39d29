/**
 * Decodes the messages of pgoutput, protocol version 1, as PostgreSQL 10 to 18 send them.
 *
 * Total and pure: any bytes give a message or a `protocol` error. Values are views into the bytes that came.
 * Layouts: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html.
 */
import type {
  ColumnValue,
  Delete,
  Insert,
  LogicalMessage,
  Message,
  Origin,
  Relation,
  RelationColumn,
  ReplicaIdentity,
  StreamAbort,
  Truncate,
  Tuple,
  Type,
  UnnamedOrigin,
  Update,
} from "./message.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType } from "./peek.ts";
import { decodeError, formatByte, Reader } from "./reader.ts";

const NULL_VALUE: ColumnValue = { kind: "null" };
const UNCHANGED_VALUE: ColumnValue = { kind: "unchanged" };
const UNNAMED_ORIGIN: UnnamedOrigin = { kind: "unnamed_origin" };
const STREAM_ABORT: StreamAbort = { kind: "stream_abort" };

/** Markers before a tuple: the new row, the old row's identity, the whole old row. */
const NEW_TUPLE = 0x4e; // N
const OLD_KEY = 0x4b; // K
const OLD_TUPLE = 0x4f; // O

/** Kinds of a column's value. */
const VALUE_NULL = 0x6e; // n
const VALUE_UNCHANGED = 0x75; // u
const VALUE_TEXT = 0x74; // t
const VALUE_BINARY = 0x62; // b

/** The smallest column of a Relation message: flags, an empty name, type and modifier. */
const MIN_COLUMN_BYTES = 10;

const TRUNCATE_CASCADE = 1;
const TRUNCATE_RESTART_IDENTITY = 2;

const REPLICA_IDENTITIES: ReadonlyMap<number, ReplicaIdentity> = new Map([
  [0x64, "default"], // d
  [0x6e, "nothing"], // n
  [0x66, "full"], // f
  [0x69, "index"], // i
]);

/** Decodes one whole message; throws a `protocol` error that names the message's type and the byte. */
export function decodeMessage(bytes: Uint8Array): Message {
  switch (messageType(bytes)) {
    case MESSAGE_TYPE.insert:
      return decodeInsert(bytes);
    case MESSAGE_TYPE.update:
      return decodeUpdate(bytes);
    case MESSAGE_TYPE.delete:
      return decodeDelete(bytes);
    case MESSAGE_TYPE.begin:
      return decodeBegin(bytes);
    case MESSAGE_TYPE.commit:
      return decodeCommit(bytes);
    case MESSAGE_TYPE.relation:
      return decodeRelation(bytes);
    case MESSAGE_TYPE.type:
      return decodeType(bytes);
    case MESSAGE_TYPE.origin:
      return decodeOrigin(bytes);
    case MESSAGE_TYPE.truncate:
      return decodeTruncate(bytes);
    case MESSAGE_TYPE.message:
      return decodeLogicalMessage(bytes);
    case MESSAGE_TYPE.streamAbort:
      return decodeStreamAbort(bytes);
    default:
      if (bytes.length === 0) return UNNAMED_ORIGIN;
      throw decodeError(bytes, 0, "unknown message type");
  }
}

function decodeInsert(bytes: Uint8Array): Insert {
  const reader = new Reader(bytes);
  const relationId = reader.uint32("relation id");
  const newTuple = readNewTuple(reader, reader.byte("tuple marker"));
  reader.end();
  return { kind: "insert", relationId, newTuple };
}

function decodeUpdate(bytes: Uint8Array): Update {
  const reader = new Reader(bytes);
  const relationId = reader.uint32("relation id");
  const marker = reader.byte("tuple marker");
  const old = marker === OLD_KEY || marker === OLD_TUPLE ? readTuple(reader) : undefined;
  const newTuple = readNewTuple(reader, old === undefined ? marker : reader.byte("tuple marker"));
  reader.end();
  if (old === undefined) return { kind: "update", relationId, newTuple };
  if (marker === OLD_KEY) return { kind: "update", relationId, oldKey: old, newTuple };
  return { kind: "update", relationId, oldTuple: old, newTuple };
}

function decodeDelete(bytes: Uint8Array): Delete {
  const reader = new Reader(bytes);
  const relationId = reader.uint32("relation id");
  const marker = reader.byte("tuple marker");
  if (marker !== OLD_KEY && marker !== OLD_TUPLE) {
    reader.fail(`expected tuple marker "K" or "O", not "${formatByte(marker)}"`, 1);
  }
  const old = readTuple(reader);
  reader.end();
  if (marker === OLD_KEY) return { kind: "delete", relationId, oldKey: old };
  return { kind: "delete", relationId, oldTuple: old };
}

function readNewTuple(reader: Reader, marker: number): Tuple {
  if (marker !== NEW_TUPLE) reader.fail(`expected tuple marker "N", not "${formatByte(marker)}"`, 1);
  return readTuple(reader);
}

function readTuple(reader: Reader): Tuple {
  const count = reader.uint16("column count");
  reader.checkCount(count, 1, "columns");
  const tuple: ColumnValue[] = [];
  for (let i = 0; i < count; i++) tuple.push(readValue(reader));
  return tuple;
}

function readValue(reader: Reader): ColumnValue {
  const kind = reader.byte("value kind");
  switch (kind) {
    case VALUE_TEXT:
      return { kind: "text", bytes: reader.lengthAndBytes("value") };
    case VALUE_NULL:
      return NULL_VALUE;
    case VALUE_UNCHANGED:
      return UNCHANGED_VALUE;
    case VALUE_BINARY:
      return { kind: "binary", bytes: reader.lengthAndBytes("value") };
    default:
      return reader.fail(`unknown value kind "${formatByte(kind)}"`, 1);
  }
}

function decodeRelation(bytes: Uint8Array): Relation {
  const reader = new Reader(bytes);
  const relationId = reader.uint32("relation id");
  const schema = readSchema(reader);
  const name = reader.name("relation name");
  const replicaIdentity = readReplicaIdentity(reader);
  const count = reader.uint16("column count");
  reader.checkCount(count, MIN_COLUMN_BYTES, "columns");
  const columns = Array.from({ length: count }, () => readColumn(reader));
  reader.end();
  return { kind: "relation", relationId, schema, name, replicaIdentity, columns };
}

function readColumn(reader: Reader): RelationColumn {
  const flags = readFlags(reader, 1);
  const name = reader.name("column name");
  const typeOid = reader.uint32("type OID");
  const typeModifier = reader.int32("type modifier");
  return { name, key: flags === 1, typeOid, typeModifier };
}

function readReplicaIdentity(reader: Reader): ReplicaIdentity {
  const byte = reader.byte("replica identity");
  const identity = REPLICA_IDENTITIES.get(byte);
  return identity ?? reader.fail(`unknown replica identity "${formatByte(byte)}"`, 1);
}

function readSchema(reader: Reader): string {
  const schema = reader.name("schema name");
  return schema === "" ? "pg_catalog" : schema;
}

/** Reads flags, refusing bits outside `known`: they would say something that we would drop in silence. */
function readFlags(reader: Reader, known: number): number {
  const flags = reader.byte("flags");
  if ((flags & ~known) !== 0) reader.fail(`unknown flags ${formatByte(flags)}`, 1);
  return flags;
}

function decodeType(bytes: Uint8Array): Type {
  const reader = new Reader(bytes);
  const typeOid = reader.uint32("type OID");
  const schema = readSchema(reader);
  const name = reader.name("type name");
  reader.end();
  return { kind: "type", typeOid, schema, name };
}

function decodeOrigin(bytes: Uint8Array): Origin {
  const reader = new Reader(bytes);
  const originLsn = reader.lsn("origin LSN");
  const name = reader.name("origin name");
  reader.end();
  return { kind: "origin", originLsn, name };
}

function decodeTruncate(bytes: Uint8Array): Truncate {
  const reader = new Reader(bytes);
  const count = reader.uint32("relation count");
  const flags = readFlags(reader, TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY);
  reader.checkCount(count, 4, "relations");
  const relationIds = Array.from({ length: count }, () => reader.uint32("relation id"));
  reader.end();
  const cascade = (flags & TRUNCATE_CASCADE) !== 0;
  const restartIdentity = (flags & TRUNCATE_RESTART_IDENTITY) !== 0;
  return { kind: "truncate", relationIds, cascade, restartIdentity };
}

function decodeLogicalMessage(bytes: Uint8Array): LogicalMessage {
  const reader = new Reader(bytes);
  const transactional = readFlags(reader, 1) === 1;
  const lsn = reader.lsn("LSN");
  const prefix = reader.name("prefix");
  const content = reader.lengthAndBytes("content");
  reader.end();
  return { kind: "message", transactional, lsn, prefix, content };
}

/** Two xids; with parallel streaming also an LSN and a timestamp. Nothing of it is used. */
function decodeStreamAbort(bytes: Uint8Array): StreamAbort {
  const reader = new Reader(bytes);
  reader.uint32("xid");
  reader.uint32("subtransaction xid");
  if (reader.remaining !== 0) {
    reader.lsn("abort LSN");
    reader.int64("abort timestamp");
  }
  reader.end();
  return STREAM_ABORT;
}
