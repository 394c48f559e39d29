/**
 * The subject alternative names of a certificate, out of its bytes (RFC 5280 4.2.1.6).
 */
import type { Buffer } from "node:buffer";
import type { X509Certificate } from "node:crypto";
import { type DerElement, extensionOf, readElements } from "./der.ts";

/** One name; `other` stands for the kinds that mmlite does not read, their text is empty. */
export interface SubjectName {
  readonly kind: "dns" | "ip" | "uri" | "other";
  readonly text: string;
}

/** 2.5.29.17, encoded. */
const SUBJECT_ALTERNATIVE_NAME = "551d11";

/** Every name in its order; none where the certificate has no such extension, or one that cannot be read. */
export function subjectNames(certificate: X509Certificate): SubjectName[] {
  try {
    const extension = extensionOf(certificate, SUBJECT_ALTERNATIVE_NAME);
    if (extension === null) return [];
    const [names] = readElements(extension);
    return readElements(names.contents).map(subjectName);
  } catch (error) {
    if (error instanceof RangeError) return [];
    throw error;
  }
}

function subjectName({ tag, contents }: DerElement): SubjectName {
  switch (tag) {
    case 0x82:
      return { kind: "dns", text: contents.toString("latin1") };
    case 0x86:
      return { kind: "uri", text: contents.toString("latin1") };
    case 0x87:
      return { kind: "ip", text: formatIp(contents) };
    default:
      return { kind: "other", text: "" };
  }
}

/** Four bytes as dotted decimals, sixteen in the short form of IPv6; other lengths as hexadecimal. */
function formatIp(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) return bytes.toString("hex");
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}
