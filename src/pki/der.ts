/**
 * As much of DER (ITU-T X.690) as it takes to read the extensions of a certificate.
 *
 * The runtimes' own text form of them cannot be trusted with names: Deno prints a DNS name that holds a comma
 * unquoted, so that one entry reads like two. And Deno does not print the extended key usage at all.
 */
import type { X509Certificate } from "node:crypto";
import { Buffer } from "node:buffer";

/** One element: its tag byte, and what is in it. */
export interface DerElement {
  readonly tag: number;
  readonly contents: Buffer;
}

/** `extensions [3]` of a TBSCertificate, RFC 5280 4.1. */
const EXTENSIONS_TAG = 0xa3;
/** Lengths that take more bytes than this belong to no certificate. */
const MAX_LENGTH_BYTES = 3;

/** The elements of a constructed one's contents; throws a RangeError for bytes that are no DER. */
export function readElements(bytes: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  for (let at = 0; at < bytes.length;) {
    const { length, start } = readLength(bytes, at + 1);
    if (start + length > bytes.length) throw new RangeError("a DER element is longer than what holds it");
    elements.push({ tag: bytes[at], contents: bytes.subarray(start, start + length) });
    at = start + length;
  }
  return elements;
}

/** The first of the elements; throws a RangeError where there is none. */
export function readFirst(bytes: Buffer): DerElement {
  const [first] = readElements(bytes);
  if (first === undefined) throw new RangeError("a DER element is missing");
  return first;
}

/**
 * The contents of a certificate's extension, the DER that its `extnValue` holds; null where it has none. The
 * object identifier is given in its encoded form, hexadecimal. Throws a RangeError for odd bytes.
 */
export function extensionOf(certificate: X509Certificate, oid: string): Buffer | null {
  const whole = readFirst(Buffer.from(certificate.raw));
  const toBeSigned = readFirst(whole.contents);
  const extensions = readElements(toBeSigned.contents).find(({ tag }) => tag === EXTENSIONS_TAG);
  if (extensions === undefined) return null;
  for (const { contents } of readElements(readFirst(extensions.contents).contents)) {
    // The object identifier, perhaps whether it is critical, and the value.
    if (readFirst(contents).contents.toString("hex") === oid) return readElements(contents).at(-1)!.contents;
  }
  return null;
}

function readLength(bytes: Buffer, at: number): { length: number; start: number } {
  const first = bytes.readUInt8(at);
  if (first < 0x80) return { length: first, start: at + 1 };
  const count = first & 0x7f;
  if (count === 0 || count > MAX_LENGTH_BYTES) throw new RangeError("a DER length has no usual form");
  return { length: bytes.readUIntBE(at + 1, count), start: at + 1 + count };
}
