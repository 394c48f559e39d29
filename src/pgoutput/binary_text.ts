/**
 * The text of values that came in binary form: byte by byte what PostgreSQL prints under `VALUE_SETTINGS`
 * (`pg/replication.ts`), whatever its release. Pure.
 *
 * Layouts are those of the types' send functions, as in numeric_send of PostgreSQL's src/backend/utils/adt/numeric.c.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { viewOf } from "../byte_words.ts";
import { formatFloat4, formatFloat8 } from "./float_text.ts";

/** OIDs of built-in types, which every server gives to the same ones. */
const OID = {
  bool: 16,
  bytea: 17,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  json: 114,
  float4: 700,
  float8: 701,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  timestamptz: 1184,
  numeric: 1700,
  uuid: 2950,
  jsonb: 3802,
} as const;

/** OIDs of the types whose binary form can be turned into their text. */
export const BINARY_TYPES: readonly number[] = Object.values(OID);

const BINARY: ReadonlySet<number> = new Set(BINARY_TYPES);

/** Whether values of a type, by its OID, may come in binary form. */
export function isSentInBinary(type: number): boolean {
  return BINARY.has(type);
}

/** Types whose binary form is their text. */
const TEXT_TYPES: ReadonlySet<number> = new Set([
  ...[OID.name, OID.text, OID.json, OID.bpchar, OID.varchar],
]);

/** Whether the binary form of a type's values, by its OID, is their text. */
export function isSameAsText(type: number): boolean {
  return TEXT_TYPES.has(type);
}

/** The text of a value, which lies from `start` to `end` in `bytes`; throws `protocol` for one that is none of its type. */
export function binaryText(type: number, bytes: Uint8Array, start: number, end: number): Uint8Array {
  const value = bytes.subarray(start, end);
  if (isSameAsText(type)) return value;
  const text = printed(type, value);
  if (text === undefined) {
    throw new MmliteError(
      "protocol",
      `Cannot read a value of ${value.length} bytes in binary form: it is none of the type with OID ${type}`,
    );
  }
  return typeof text === "string" ? Buffer.from(text, "latin1") : text;
}

/**
 * The number that a value of an integer type is, which begins at `start`; undefined for other types, for a value of
 * another length than those of its type, and for more than a double holds.
 */
export function binaryInteger(
  type: number,
  bytes: Uint8Array,
  start: number,
  length: number,
): number | undefined {
  if (length !== SIZES[type]) return undefined;
  switch (type) {
    case OID.int4:
      return int32At(bytes, start);
    case OID.int8: {
      const high = int32At(bytes, start);
      const isSafe = high >= -MAX_SAFE_HIGH && high < MAX_SAFE_HIGH;
      return isSafe ? high * 2 ** 32 + (int32At(bytes, start + 4) >>> 0) : undefined;
    }
    case OID.int2:
      return ((bytes[start] << 24) | (bytes[start + 1] << 16)) >> 16;
    case OID.oid:
      return int32At(bytes, start) >>> 0;
    default:
      return undefined;
  }
}

/** Upper halves from here on are more than a double holds. */
const MAX_SAFE_HIGH = 2 ** 21;

function int32At(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}

/** Undefined for bytes that are no value of the type, and for types that are not known here. */
function printed(type: number, value: Uint8Array): string | Uint8Array | undefined {
  const size = SIZES[type];
  if (size !== undefined && size !== value.length) return undefined;
  const view = viewOf(value);
  switch (type) {
    case OID.bool:
      return value[0] === 0 ? "f" : "t";
    case OID.int2:
      return String(view.getInt16(0));
    case OID.int4:
      return String(view.getInt32(0));
    case OID.int8:
      return String(view.getBigInt64(0));
    case OID.oid:
      return String(view.getUint32(0));
    case OID.float4:
      return formatFloat4(view);
    case OID.float8:
      return formatFloat8(view);
    case OID.bytea:
      return hexBytes(value);
    case OID.uuid:
      return formatUuid(hexOf(value));
    case OID.jsonb:
      return value[0] === JSONB_VERSION ? value.subarray(1) : undefined;
    case OID.date:
      return formatDate(view.getInt32(0));
    case OID.time:
      return formatTime(Number(view.getBigInt64(0)));
    case OID.timestamp:
      return formatTimestamp(view.getBigInt64(0), "");
    case OID.timestamptz:
      return formatTimestamp(view.getBigInt64(0), "+00");
    case OID.numeric:
      return formatNumeric(view);
    default:
      return undefined;
  }
}

/** Bytes of the values of types that all have as many. */
const SIZES: Readonly<Record<number, number>> = {
  [OID.bool]: 1,
  [OID.int2]: 2,
  [OID.int4]: 4,
  [OID.int8]: 8,
  [OID.oid]: 4,
  [OID.float4]: 4,
  [OID.float8]: 8,
  [OID.uuid]: 16,
  [OID.date]: 4,
  [OID.time]: 8,
  [OID.timestamp]: 8,
  [OID.timestamptz]: 8,
};

const JSONB_VERSION = 1;

/** Bytes that are made digits of at a time: a string has no room for those of a long value. */
const HEX_PIECE_BYTES = 0x10_0000;

function hexBytes(value: Uint8Array): Uint8Array {
  const text = Buffer.allocUnsafe(2 + 2 * value.length);
  text.write("\\x", "latin1");
  for (let at = 0; at < value.length; at += HEX_PIECE_BYTES) {
    text.write(hexOf(value.subarray(at, at + HEX_PIECE_BYTES)), 2 + 2 * at, "latin1");
  }
  return text;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}

function formatUuid(hex: string): string {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const MICROSECONDS_PER_SECOND = 1_000_000;
const MICROSECONDS_PER_DAY = 86_400_000_000n;
const MIN_INT32 = -0x8000_0000;
const MAX_INT32 = 0x7fff_ffff;
const MIN_INT64 = -(1n << 63n);
const MAX_INT64 = (1n << 63n) - 1n;

/** Of days since 2000-01-01. */
function formatDate(days: number): string {
  if (days === MAX_INT32) return "infinity";
  if (days === MIN_INT32) return "-infinity";
  const { text, era } = calendarDay(days);
  return text + era;
}

/** Of microseconds since 2000-01-01; `zone` stands behind the time. */
function formatTimestamp(timestamp: bigint, zone: string): string {
  if (timestamp === MAX_INT64) return "infinity";
  if (timestamp === MIN_INT64) return "-infinity";
  const rest = timestamp % MICROSECONDS_PER_DAY;
  const ofDay = rest < 0n ? rest + MICROSECONDS_PER_DAY : rest;
  const { text, era } = calendarDay(Number((timestamp - ofDay) / MICROSECONDS_PER_DAY));
  return `${text} ${formatTime(Number(ofDay))}${zone}${era}`;
}

/** Of microseconds since midnight. */
function formatTime(microseconds: number): string {
  const seconds = Math.floor(microseconds / MICROSECONDS_PER_SECOND);
  const fraction = microseconds - seconds * MICROSECONDS_PER_SECOND;
  const whole = `${pad(Math.floor(seconds / 3600), 2)}:${pad(Math.floor(seconds / 60) % 60, 2)}:${
    pad(seconds % 60, 2)
  }`;
  return fraction === 0 ? whole : `${whole}.${pad(fraction, 6).replace(/0+$/, "")}`;
}

const DAYS_PER_ERA = 146_097;
/** Days from 0000-03-01, with which the Gregorian calendar begins anew every 400 years, to 2000-01-01. */
const DAYS_BEFORE_2000 = 730_425;

/** Year, month and day of a number of days since 2000-01-01, and what follows the year that is before Christ. */
function calendarDay(days: number): { text: string; era: string } {
  const since = days + DAYS_BEFORE_2000;
  const period = Math.floor(since / DAYS_PER_ERA);
  const ofPeriod = since - period * DAYS_PER_ERA;
  const yearOfPeriod = Math.floor(
    (ofPeriod - Math.floor(ofPeriod / 1460) + Math.floor(ofPeriod / 36_524) -
      Math.floor(ofPeriod / 146_096)) / 365,
  );
  const ofYear = ofPeriod -
    (365 * yearOfPeriod + Math.floor(yearOfPeriod / 4) - Math.floor(yearOfPeriod / 100));
  // Months from March on.
  const month = Math.floor((5 * ofYear + 2) / 153);
  const day = ofYear - Math.floor((153 * month + 2) / 5) + 1;
  const year = yearOfPeriod + 400 * period + (month >= 10 ? 1 : 0);
  const text = `${pad(year > 0 ? year : 1 - year, 4)}-${pad(month >= 10 ? month - 9 : month + 3, 2)}-${
    pad(day, 2)
  }`;
  return { text, era: year > 0 ? "" : " BC" };
}

function pad(number: number, digits: number): string {
  return String(number).padStart(digits, "0");
}

const NUMERIC_HEADER_BYTES = 8;
const NUMERIC_NEGATIVE = 0x4000;
/** What stands for the sign of values that are no numbers. */
const NUMERIC_SPECIAL: Readonly<Record<number, string>> = {
  0xc000: "NaN",
  0xd000: "Infinity",
  0xf000: "-Infinity",
};

/** Of digits in base 10,000, the first of which stands for 10,000 to the power of `weight`. */
function formatNumeric(view: DataView): string | undefined {
  if (view.byteLength < NUMERIC_HEADER_BYTES) return undefined;
  const count = view.getUint16(0);
  const weight = view.getInt16(2);
  const sign = view.getUint16(4);
  const scale = view.getUint16(6);
  if (view.byteLength !== NUMERIC_HEADER_BYTES + 2 * count) return undefined;
  const special = NUMERIC_SPECIAL[sign];
  if (special !== undefined) return special;
  const group = (place: number) => {
    const index = weight - place;
    return index >= 0 && index < count ? pad(view.getUint16(NUMERIC_HEADER_BYTES + 2 * index), 4) : "0000";
  };
  let whole = "";
  for (let place = weight; place >= 0; place--) whole += group(place);
  let fraction = "";
  for (let place = -1; fraction.length < scale; place--) fraction += group(place);
  const number = `${sign === NUMERIC_NEGATIVE ? "-" : ""}${whole.replace(/^0+(?=.)/, "") || "0"}`;
  return scale === 0 ? number : `${number}.${fraction.slice(0, scale)}`;
}
