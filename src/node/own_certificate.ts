/**
 * The node's own certificate where it has the CA's key: issued when there is none, renewed long before it expires.
 *
 * So that `mmlite cert ca` and `mmlite run` are all that the first node of a cluster takes. A node without that key
 * shows in its status that its certificate is about to expire.
 */
import { existsSync } from "node:fs";
import { delay } from "../backoff.ts";
import type { TlsConfig } from "../config/tls.ts";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import {
  type Authority,
  CERTIFICATE_DAYS,
  issueCertificate,
  readAuthority,
  renewCertificate,
} from "../pki/authority.ts";
import { DAY_MS, findAuthority } from "../pki/certificate.ts";
import { readCertificateFile } from "../pki/certificate_file.ts";
import { peerNameOf } from "../pki/identity.ts";
import { createFiles, replaceFile } from "../pki/key_files.ts";
import { type HostName, hostNames } from "../pki/subject_names.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import { readProtectedFile } from "../protected_file.ts";
import type { PeerName } from "../wire/channel.ts";

/** Whom a certificate is issued for. */
interface Owner {
  readonly name: PeerName;
  /** Where it is reached. */
  readonly hosts: readonly HostName[];
}

/** How often the certificate's age is looked at, milliseconds. */
const RENEWAL_CHECK_MS = 60 * 60_000;

const logger = log("tls");

/**
 * Issues the certificate, or renews it once two thirds of its life are over, where the CA's key is here; true if it
 * did. Throws `config`.
 */
export async function ensureCertificate(
  files: TlsConfig,
  owner: Owner,
  now = Date.now(),
): Promise<boolean> {
  const { ca, caKey, cert } = files;
  if (caKey === null) return false;
  if (!existsSync(cert)) return await issue(files, { authority: await readAuthority({ ca, caKey }), owner });
  const { certificates: [present] } = await readCertificateFile(cert, "Remove the file to have one issued");
  const [from, until] = [Date.parse(present.validFrom), Date.parse(present.validTo)];
  if (until - now > (until - from) / 3) return false;
  const authority = await readAuthority({ ca, caKey });
  const lastsLonger = Date.parse(authority.certificate.validTo) > until;
  const name = peerNameOf(present);
  if (name === null || !lastsLonger || findAuthority([present], [authority.certificate]) === null) {
    return false;
  }
  const subject = { name, hosts: hostNames(present), days: (until - from) / DAY_MS };
  const key = await readProtectedFile(files.key, "key file");
  await replaceFile({ path: cert, text: await renewCertificate(authority, { key, subject }), secret: false });
  logger.info("Renewed this node's certificate {path}", { path: cert });
  return true;
}

/** Renews the certificate in time until `signal` is aborted; what goes wrong is logged and tried again. */
export async function keepCertificate(
  files: TlsConfig,
  { owner, keys, signal }: { owner: Owner; keys: TlsKeys; signal: AbortSignal },
): Promise<void> {
  if (files.caKey === null) return;
  for (;;) {
    await delay(RENEWAL_CHECK_MS, signal);
    if (signal.aborted) return;
    try {
      if (await ensureCertificate(files, owner)) await keys.reload();
    } catch (thrown) {
      const { message, hint } = toMmliteError(thrown);
      logger.warn("Cannot renew this node's certificate: {message}. {hint}", { message, hint });
    }
  }
}

async function issue(
  { cert, key }: TlsConfig,
  { authority, owner }: { authority: Authority; owner: Owner },
): Promise<boolean> {
  const subject = { ...owner, days: CERTIFICATE_DAYS };
  if (existsSync(key)) {
    // Of a start that ended between the two files, or left by whoever removed the certificate.
    const text = await renewCertificate(authority, {
      key: await readProtectedFile(key, "key file"),
      subject,
    });
    await createFiles([{ path: cert, text, secret: false }]);
  } else {
    const issued = await issueCertificate(authority, subject);
    await createFiles([
      { path: key, text: issued.key, secret: true },
      { path: cert, text: issued.certificate, secret: false },
    ]);
  }
  logger.info("Issued this node a certificate, {path}, as the CA's key is here", { path: cert });
  return true;
}
