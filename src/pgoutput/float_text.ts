/**
 * The text of floats as PostgreSQL prints them from 12 on with `extra_float_digits` above 0: the fewest digits that lie
 * between the middles to the next floats on both sides, of those the nearest to the float.
 *
 * JavaScript's own text of a number may be such a middle, which PostgreSQL's src/common/d2s.c leaves out; and it knows no
 * float4. So this is counted in whole numbers: exact, and not fast.
 */

/** How a format lays out its bits, and from which power of ten on it is printed with an exponent. */
interface FloatFormat {
  readonly mantissaBits: bigint;
  readonly exponentBits: bigint;
  /** Of a mantissa as a whole number, for the exponent field 1. */
  readonly minExponent: number;
  readonly digits: number;
}

const FLOAT4: FloatFormat = { mantissaBits: 23n, exponentBits: 8n, minExponent: -149, digits: 6 };
const FLOAT8: FloatFormat = { mantissaBits: 52n, exponentBits: 11n, minExponent: -1074, digits: 15 };
/** The lowest power of ten that is printed without an exponent. */
const MIN_PLAIN_EXPONENT = -4;

/** Of the four bytes of a float4. */
export function formatFloat4(view: DataView): string {
  return format(BigInt(view.getUint32(0)), FLOAT4);
}

/** Of the eight bytes of a float8. */
export function formatFloat8(view: DataView): string {
  return format(view.getBigUint64(0), FLOAT8);
}

function format(bits: bigint, { mantissaBits, exponentBits, minExponent, digits }: FloatFormat): string {
  const fraction = BigInt.asUintN(Number(mantissaBits), bits);
  const field = BigInt.asUintN(Number(exponentBits), bits >> mantissaBits);
  const sign = bits >> (mantissaBits + exponentBits) === 1n ? "-" : "";
  if (field === (1n << exponentBits) - 1n) return fraction === 0n ? `${sign}Infinity` : "NaN";
  if (fraction === 0n && field === 0n) return `${sign}0`;
  const mantissa = field === 0n ? fraction : fraction | (1n << mantissaBits);
  const exponent = minExponent + Math.max(0, Number(field) - 1);
  // The next float below a power of two is only half as far away.
  const isPower = fraction === 0n && field > 1n;
  return sign + layOut(shortest(mantissa, exponent, isPower), digits);
}

/** Digits, the last of which stands for ten to the power of `exponent`. */
interface Decimal {
  readonly digits: string;
  readonly exponent: number;
}

function shortest(mantissa: bigint, exponent: number, isPower: boolean): Decimal {
  // In quarters of the mantissa's unit the middles are whole numbers, and so they are in powers of ten.
  const quarters = exponent - 2;
  const scale = quarters >= 0 ? 1n << BigInt(quarters) : 5n ** BigInt(-quarters);
  const value = 4n * mantissa * scale;
  const above = (4n * mantissa + 2n) * scale;
  const below = (4n * mantissa - (isPower ? 1n : 2n)) * scale;
  // Between them is a multiple of this power of ten; of a higher one only where the digits end in zeros.
  let power = String(above - below - 1n).length - 1;
  let unit = 10n ** BigInt(power);
  while ((above - 1n) / (10n * unit) > below / (10n * unit)) {
    unit *= 10n;
    power++;
  }
  const digits = clamp(nearest(value, unit), below / unit + 1n, (above - 1n) / unit);
  return { digits: String(digits), exponent: power + Math.min(0, quarters) };
}

/** In which the even one of two that are as near is taken. */
function nearest(value: bigint, unit: bigint): bigint {
  const whole = value / unit;
  const twice = 2n * (value - whole * unit);
  return twice > unit || (twice === unit && whole % 2n === 1n) ? whole + 1n : whole;
}

function clamp(value: bigint, least: bigint, most: bigint): bigint {
  if (value < least) return least;
  return value > most ? most : value;
}

function layOut({ digits, exponent }: Decimal, plainDigits: number): string {
  const power = exponent + digits.length - 1;
  if (power < MIN_PLAIN_EXPONENT || power >= plainDigits) {
    const rest = digits.length > 1 ? `.${digits.slice(1)}` : "";
    return `${digits[0]}${rest}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  if (exponent >= 0) return digits + "0".repeat(exponent);
  if (power < 0) return `0.${"0".repeat(-power - 1)}${digits}`;
  return `${digits.slice(0, power + 1)}.${digits.slice(power + 1)}`;
}
