/**
 * Files of certificates, read with errors that say which file and what to do.
 */
import type { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { MmliteError } from "../errors.ts";
import { readCertificates } from "./certificate.ts";

/** A file of certificates: at least one. */
export interface CertificateFile {
  /** PEM, as it stands in the file. */
  readonly text: string;
  readonly certificates: readonly [X509Certificate, ...X509Certificate[]];
}

/** Reads a PEM file; throws `config`, with the hint given, where it cannot be read or holds no certificate. */
export async function readCertificateFile(path: string, hint: string): Promise<CertificateFile> {
  const text = await readText(path, hint);
  try {
    const [first, ...others] = readCertificates(text);
    if (first !== undefined) return { text, certificates: [first, ...others] };
  } catch (cause) {
    throw unusableCertificate(path, `a certificate in it cannot be read: ${(cause as Error).message}`, hint);
  }
  throw unusableCertificate(path, "it holds no certificate in PEM form", hint);
}

/** The error for a file that can be read and not be used. */
export function unusableCertificate(path: string, why: string, hint: string): MmliteError {
  return new MmliteError("config", `Cannot use certificate file "${path}": ${why}`, { hint });
}

async function readText(path: string, hint: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new MmliteError("config", `Cannot read certificate file "${path}": ${(cause as Error).message}`, {
      hint,
      cause,
    });
  }
}
