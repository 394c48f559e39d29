/**
 * The subject alternative names of a certificate, out of its bytes (RFC 5280 4.2.1.6).
 */
import type { Buffer } from "node:buffer";
import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { type DerElement, extensionOf, readElements, readFirst } from "./der.ts";

/** One name; `other` stands for the kinds that mmlite does not read, their text is empty. */
export interface SubjectName {
  readonly kind: "dns" | "ip" | "uri" | "other";
  readonly text: string;
}

/** A name under which a host is reached. */
export interface HostName extends SubjectName {
  readonly kind: "dns" | "ip";
}

const DNS_NAME =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*$/i;

/** 2.5.29.17, encoded. */
const SUBJECT_ALTERNATIVE_NAME = "551d11";

/** Parses `dns:NAME` or `ip:ADDRESS`; null for anything else. */
export function parseHostName(text: string): HostName | null {
  const [, kind, name] = /^(dns|ip):(.+)$/.exec(text) ?? [];
  if (kind === "ip" && isIP(name) === 4) return { kind, text: name };
  if (kind === "ip" && isIP(name) === 6) {
    return URL.canParse(`http://[${name}]`) ? { kind, text: shortIpv6(name) } : null;
  }
  return kind === "dns" && DNS_NAME.test(name) && isIP(name) === 0 ? { kind, text: name } : null;
}

/** Formats what {@link parseHostName} parses. */
export function formatHostName({ kind, text }: HostName): string {
  return `${kind}:${text}`;
}

/** The names of a certificate under which a host is reached. */
export function hostNames(certificate: X509Certificate): HostName[] {
  return subjectNames(certificate).filter((name): name is HostName =>
    name.kind === "dns" || name.kind === "ip"
  );
}

/** Every name in its order; none where the certificate has no such extension, or one that cannot be read. */
export function subjectNames(certificate: X509Certificate): SubjectName[] {
  try {
    const extension = extensionOf(certificate, SUBJECT_ALTERNATIVE_NAME);
    if (extension === null) return [];
    return readElements(readFirst(extension).contents).map(subjectName);
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
  return shortIpv6(groups.join(":"));
}

/** The usual form of an IPv6 address: lower case, the longest run of zeros left out, no dotted decimals. */
function shortIpv6(text: string): string {
  return new URL(`http://[${text}]`).hostname.slice(1, -1);
}
