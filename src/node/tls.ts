/**
 * TLS of a node: its keys, read again when they change, and its certificate kept fresh where the CA's key is.
 */
import { advertisedUrl } from "../config/address.ts";
import type { Config } from "../config.ts";
import { MmliteError } from "../errors.ts";
import { DAY_MS, EXPIRY_WARNING_DAYS } from "../pki/certificate.ts";
import { type HostName, parseHostName } from "../pki/subject_names.ts";
import { TlsKeys } from "../pki/tls_keys.ts";
import { ensureCertificate, keepCertificate } from "./own_certificate.ts";

/** TLS of a node that has it. */
export interface NodeTls {
  readonly keys: TlsKeys;
  /** Watches and renews the files until `signal` is aborted. Never throws. */
  run(signal: AbortSignal): Promise<void>;
}

/** Reads the files, after making what can be made of them; null for a node that speaks cleartext. Throws `config`. */
export async function openTls({ node, listen: { peers } }: Config): Promise<NodeTls | null> {
  const { tls: files } = peers;
  if (files === null) return null;
  const owner = { name: { cluster: node.cluster, node: node.name }, hosts: hostsOf(peers) };
  await ensureCertificate(files, owner);
  const keys = await TlsKeys.load(files, owner.name);
  return {
    keys,
    run: async (signal) => {
      await Promise.all([keys.watch(signal), keepCertificate(files, { owner, keys, signal })]);
    },
  };
}

/** The CA's files on a node that may issue certificates; null on others. */
export function authorityFiles({ listen: { peers } }: Config): { ca: string; caKey: string } | null {
  if (peers.tls === null || peers.tls.caKey === null) return null;
  return { ca: peers.tls.ca, caKey: peers.tls.caKey };
}

/** What is wrong with the keys in use, or soon will be. */
export function tlsProblems(keys: TlsKeys, now = Date.now()): MmliteError[] {
  const { expiresAt, authorityExpiresAt } = keys.current;
  const soon = now + EXPIRY_WARNING_DAYS * DAY_MS;
  const problems = keys.problem === null ? [] : [keys.problem];
  if (expiresAt.getTime() < soon) {
    problems.push(expiry("this node's certificate", expiresAt, {
      now,
      hint:
        "Run `mmlite cert issue` for it where the CA's key is, and put the new files in the place of the old",
    }));
  }
  if (authorityExpiresAt.getTime() < soon) {
    problems.push(expiry("the CA's certificate", authorityExpiresAt, {
      now,
      hint: "Make a new CA, add it to ca.pem on every node, then issue every node a certificate from it",
    }));
  }
  return problems;
}

function expiry(whose: string, at: Date, { now, hint }: { now: number; hint: string }): MmliteError {
  const message = at.getTime() < now
    ? `Cannot connect to peers: ${whose} expired at ${at.toISOString()}`
    : `Cannot connect to peers after ${at.toISOString()}: ${whose} expires then`;
  return new MmliteError("config", message, { hint });
}

/** The host under which peers know this node, as far as it knows itself. */
function hostsOf(peers: Config["listen"]["peers"]): HostName[] {
  const url = advertisedUrl(peers, peers.address);
  const host = url === null ? "" : new URL(url).hostname.replace(/^\[|\]$/g, "");
  const name = parseHostName(`ip:${host}`) ?? parseHostName(`dns:${host}`);
  return name === null ? [] : [name];
}
