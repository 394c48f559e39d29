/**
 * Types whose binary form is the same on servers of all releases from 10 to 18, and names nothing by an OID that another
 * database gives to something else.
 *
 * OIDs: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat. Left out are those of names of
 * catalog objects (regclass and its kin), money, whose digits follow the locale, xml, which says its encoding, and whatever is not built in.
 */
const TYPES: ReadonlySet<number> = new Set([
  // bool, bytea, "char", name, int8, int2, int4, text, oid, json
  ...[16, 17, 18, 19, 20, 21, 23, 25, 26, 114],
  // float4, float8, macaddr8, macaddr, inet, cidr, bpchar, varchar
  ...[700, 701, 774, 829, 869, 650, 1042, 1043],
  // date, time, timestamp, timestamptz, interval, timetz, bit, varbit, numeric, uuid, pg_lsn, jsonb
  ...[1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 2950, 3220, 3802],
  // Arrays of them: bool, bytea, int2, int4, text, int8, varchar, bpchar, float4, float8
  ...[1000, 1001, 1005, 1007, 1009, 1016, 1015, 1014, 1021, 1022],
  // json, date, time, timestamp, timestamptz, interval, numeric, uuid, jsonb, inet
  ...[199, 1182, 1183, 1115, 1185, 1187, 1231, 2951, 3807, 1041],
]);

/** Whether the binary form of a type's values, by its OID, means the same on every server. */
export function isSameInBinary(type: number): boolean {
  return TYPES.has(type);
}
