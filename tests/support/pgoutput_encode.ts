/**
 * Encodes pgoutput messages as a server sends them: the inverse of `src/pgoutput/decode.ts`, for tests.
 *
 * Layouts: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html.
 */
import { Buffer } from "node:buffer";
import type { ColumnValue, Message, Relation, RelationColumn, Tuple } from "../../src/pgoutput/message.ts";

/** Encodes one message; a stream abort gets the layout without an LSN. */
export function encodeMessage(message: Message): Uint8Array {
  return Buffer.concat(partsOf(message));
}

function partsOf(message: Message): Uint8Array[] {
  switch (message.kind) {
    case "begin":
      return [char("B"), int64(message.commitLsn), int64(message.commitTimestamp), int32(message.xid)];
    case "commit": {
      const { commitLsn, endLsn, commitTimestamp } = message;
      return [char("C"), byte(0), int64(commitLsn), int64(endLsn), int64(commitTimestamp)];
    }
    case "origin":
      return [char("O"), int64(message.originLsn), name(message.name)];
    case "relation":
      return relationParts(message);
    case "type":
      return [char("Y"), int32(message.typeOid), schemaName(message.schema), name(message.name)];
    case "insert":
      return [char("I"), int32(message.relationId), char("N"), ...tupleParts(message.newTuple)];
    case "update":
      return [
        char("U"),
        int32(message.relationId),
        ...oldParts(message),
        char("N"),
        ...tupleParts(message.newTuple),
      ];
    case "delete":
      return [char("D"), int32(message.relationId), ...oldParts(message)];
    case "truncate": {
      const flags = (message.cascade ? 1 : 0) | (message.restartIdentity ? 2 : 0);
      return [char("T"), int32(message.relationIds.length), byte(flags), ...message.relationIds.map(int32)];
    }
    case "message":
      return [
        char("M"),
        byte(message.transactional ? 1 : 0),
        int64(message.lsn),
        name(message.prefix),
        int32(message.content.length),
        message.content,
      ];
    case "unnamed_origin":
      return [];
    case "stream_abort":
      return [char("A"), int32(1), int32(2)];
  }
}

function relationParts(relation: Relation): Uint8Array[] {
  const identity = { default: "d", nothing: "n", full: "f", index: "i" }[relation.replicaIdentity];
  return [
    char("R"),
    int32(relation.relationId),
    schemaName(relation.schema),
    name(relation.name),
    char(identity),
    int16(relation.columns.length),
    ...relation.columns.flatMap(columnParts),
  ];
}

function columnParts(column: RelationColumn): Uint8Array[] {
  return [byte(column.key ? 1 : 0), name(column.name), int32(column.typeOid), int32(column.typeModifier)];
}

function oldParts(old: { readonly oldKey?: Tuple; readonly oldTuple?: Tuple }): Uint8Array[] {
  if (old.oldKey !== undefined) return [char("K"), ...tupleParts(old.oldKey)];
  if (old.oldTuple !== undefined) return [char("O"), ...tupleParts(old.oldTuple)];
  return [];
}

function tupleParts(tuple: Tuple): Uint8Array[] {
  return [int16(tuple.length), ...tuple.flatMap(valueParts)];
}

function valueParts(value: ColumnValue): Uint8Array[] {
  switch (value.kind) {
    case "null":
      return [char("n")];
    case "unchanged":
      return [char("u")];
    case "text":
      return [char("t"), int32(value.bytes.length), value.bytes];
    case "binary":
      return [char("b"), int32(value.bytes.length), value.bytes];
  }
}

function schemaName(schema: string): Uint8Array {
  return name(schema === "pg_catalog" ? "" : schema);
}

function name(text: string): Uint8Array {
  return Buffer.from(`${text}\0`, "utf8");
}

function char(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

function byte(value: number): Uint8Array {
  return Uint8Array.of(value);
}

function int16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

function int32(value: number): Uint8Array {
  return Uint8Array.of(value >> 24, value >> 16, value >> 8, value);
}

function int64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, value));
  return bytes;
}
