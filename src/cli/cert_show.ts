/**
 * What `mmlite cert show` prints of a certificate.
 */
import { type CertificateFacts, certificateFacts, DAY_MS, EXPIRY_WARNING_DAYS } from "../pki/certificate.ts";
import { readCertificateFile } from "../pki/certificate_file.ts";
import type { Cell } from "./output.ts";

/** A certificate, and the file that it stands in. */
export interface ShownCertificate extends CertificateFacts {
  readonly file: string;
  /** Whole days until it expires; negative once it has. */
  readonly daysLeft: number;
  /** Now lies between its two dates. */
  readonly valid: boolean;
}

/** Every certificate of the files; throws `config`. */
export async function readShown(files: readonly string[]): Promise<ShownCertificate[]> {
  const now = Date.now();
  const shown = await Promise.all(files.map(async (file) => {
    const hint = "Name a PEM file of certificates, such as node.pem or ca.pem";
    const { certificates } = await readCertificateFile(file, hint);
    return certificates.map((certificate) => {
      const facts = certificateFacts(certificate);
      const daysLeft = Math.floor((facts.notAfter.getTime() - now) / DAY_MS);
      return {
        ...facts,
        file,
        daysLeft,
        valid: facts.notBefore.getTime() <= now && now <= facts.notAfter.getTime(),
      };
    });
  }));
  return shown.flat();
}

/** One certificate as rows of two columns. */
export function shownRows(one: ShownCertificate): [string, Cell | string][] {
  return [
    ["file", one.file],
    ["identity", one.identity ?? "none: it names no node of mmlite"],
    ["kind", one.authority ? "certificate authority" : "node"],
    ["hosts", one.hosts.join(", ") || "-"],
    ["issuer", one.issuer.replaceAll("\n", ", ")],
    ["fingerprint", one.fingerprint],
    ["valid from", one.notBefore.toISOString()],
    ["valid until", one.notAfter.toISOString()],
    ["days left", daysCell(one)],
  ];
}

/** One certificate as JSON. */
export function shownJson(one: ShownCertificate): Record<string, unknown> {
  return {
    file: one.file,
    identity: one.identity,
    kind: one.authority ? "ca" : "node",
    hosts: one.hosts,
    issuer: one.issuer,
    fingerprint: one.fingerprint,
    not_before: one.notBefore.toISOString(),
    not_after: one.notAfter.toISOString(),
    days_left: one.daysLeft,
    valid: one.valid,
  };
}

function daysCell({ daysLeft, valid }: ShownCertificate): Cell {
  if (!valid) return { text: daysLeft < 0 ? "expired" : "not yet valid", colour: "red" };
  return { text: String(daysLeft), colour: daysLeft < EXPIRY_WARNING_DAYS ? "yellow" : "green" };
}
