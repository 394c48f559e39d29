/**
 * How a node that joins gets its certificate: its key is made here and stays here, a member signs for a token.
 *
 * The files are written in such an order that a crash at any moment leaves what the next attempt can go on with.
 */
import { createPrivateKey, type X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { rm, rmdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { TlsConfig } from "../config/tls.ts";
import { type ErrorKind, MmliteError, toMmliteError } from "../errors.ts";
import { readAuthority, requestJoin } from "../http/join_client.ts";
import { createRequest } from "../pki/authority.ts";
import { readCertificates } from "../pki/certificate.ts";
import { isSamePeer, peerNameOf } from "../pki/identity.ts";
import { createFiles, ensureKeyDirectory, replaceFile } from "../pki/key_files.ts";
import { readProtectedFile } from "../protected_file.ts";
import type { PeerName } from "../wire/channel.ts";
import type { InviteToken } from "./invite_token.ts";
import { fingerprintOf } from "./invites.ts";
import { type JoinAnswer, parseJoinAnswer } from "./join_messages.ts";
import { firstReachable } from "./join_members.ts";
import { type PendingJoin, readPendingJoin, removePendingJoin, writePendingJoin } from "./pending_join.ts";

interface CertificateOptions {
  readonly state: string;
  readonly files: TlsConfig;
  readonly name: PeerName;
  /** Null to go on with a join that has its certificate. */
  readonly token: InviteToken | null;
  /** Tells people how far it is. */
  readonly say: (sentence: string) => void;
  readonly signal: AbortSignal;
}

/** After these nobody knows whether the member has signed: the key must stay, so that it can be asked again. */
const UNCERTAIN: readonly ErrorKind[] = ["unreachable", "aborted", "transient", "internal", "protocol"];
/** By this host's clock, which may be wrong by as much, milliseconds: within that the member decides. */
const CLOCK_TOLERANCE_MS = 10 * 60_000;

/**
 * Makes sure that the files of TLS are here, and says through whom this node joins. Throws `refused` or `conflict` as
 * the member does, `untrusted` for another member or CA than the token names; then nothing is left behind.
 */
export async function ensureJoinCertificate(options: CertificateOptions): Promise<PendingJoin> {
  const { state, files, token, say } = options;
  const found = await readPendingJoin(state);
  if (found !== null) requireSameJoin(found, options);
  if (found !== null && existsSync(files.cert)) {
    const pending = token === null ? found : { ...found, inviter: token.inviter, urls: [...token.urls] };
    if (token !== null) await writePendingJoin(state, pending);
    say(`Going on with the join of node "${pending.node}": it has its certificate`);
    return pending;
  }
  if (token === null) throw missingToken(found);
  refuseExpired(token);
  if (found === null) refusePresentFiles(files);
  const { pending, key } = await ensureRequest(options, { token, found });
  let isAsked = false;
  try {
    const inviter = await findInviter(token, options);
    isAsked = true;
    const answer = await requestCertificate(token, { ...inviter, pending, signal: options.signal });
    await writeCertificate(answer, { files, key, name: options.name });
  } catch (thrown) {
    const { kind } = toMmliteError(thrown);
    const mayBeSigned = found !== null || (isAsked && UNCERTAIN.includes(kind));
    // Only the inviter may say that the key is of no use; before that nobody has proven to be the inviter.
    if (!mayBeSigned || (isAsked && kind === "refused")) await removeTraces(options);
    throw thrown;
  }
  say(`Node "${token.inviter}" has signed the certificate of this node, ${files.cert}`);
  return pending;
}

function requireSameJoin(found: PendingJoin, { name, token, state }: CertificateOptions): void {
  const isSame = found.cluster === name.cluster && found.node === name.node &&
    (token === null || token.cluster === found.cluster);
  if (isSame) return;
  throw new MmliteError(
    "conflict",
    `Cannot join: the join of node "${found.node}" of cluster "${found.cluster}" has not ended in "${state}"`,
    { hint: `Go on with that one, or choose another directory with --state` },
  );
}

function missingToken(found: PendingJoin | null): MmliteError {
  const why = found === null ? "no token is given" : "it has no certificate yet, and no token is given";
  return new MmliteError("usage", `Cannot join: ${why}`, {
    hint: "Run `mmlite invite` on a member, then `mmlite join TOKEN --name NAME --postgres URL` here",
  });
}

function refuseExpired({ inviter, expiresAt }: InviteToken): void {
  if (expiresAt.getTime() + CLOCK_TOLERANCE_MS > Date.now()) return;
  throw new MmliteError("refused", `Cannot join with this token: it expired at ${expiresAt.toISOString()}`, {
    hint:
      `Make a new one with \`mmlite invite\` on "${inviter}"; check this host's clock if it should be good`,
  });
}

/** Where there are files and no join has begun, this is a member already. */
function refusePresentFiles({ cert, key, ca }: TlsConfig): void {
  const present = [cert, key, ca].find((path) => existsSync(path));
  if (present === undefined) return;
  throw new MmliteError(
    "conflict",
    `Cannot join: this node has certificate files already, such as "${present}"`,
    {
      hint:
        "If it has joined, start it with `mmlite run`; otherwise move the files away or name other places",
    },
  );
}

/** The request to sign and its key, made at the first attempt. The request first: a key without it is nobody's. */
async function ensureRequest(
  { state, files, name }: CertificateOptions,
  { token, found }: { readonly token: InviteToken; readonly found: PendingJoin | null },
): Promise<{ pending: PendingJoin; key: string }> {
  const through = { inviter: token.inviter, urls: [...token.urls] };
  if (found !== null && existsSync(files.key)) {
    const pending = { ...found, ...through };
    await writePendingJoin(state, pending);
    return { pending, key: await readProtectedFile(files.key, "key file") };
  }
  const { request, key } = await createRequest();
  const pending = { cluster: name.cluster, node: name.node, ...through, request };
  await ensureKeyDirectory(state);
  for (const path of [files.key, files.cert, files.ca]) await ensureKeyDirectory(dirname(path));
  await writePendingJoin(state, pending);
  await createFiles([{ path: files.key, text: key, secret: true }]);
  return { pending, key };
}

/** Where the inviter answers, and its CA, PEM. */
async function findInviter(
  token: InviteToken,
  { say, signal }: CertificateOptions,
): Promise<{ url: URL; authority: string }> {
  const { url, answer } = await firstReachable(token.urls, async (url) => {
    return findAuthority(await readAuthority(url, signal), { token, url });
  });
  say(`Node "${token.inviter}" shows the CA that the token names`);
  return { url, authority: answer };
}

async function requestCertificate(
  { cluster, inviter, id, secret }: InviteToken,
  { url, authority, pending, signal }: {
    readonly url: URL;
    readonly authority: string;
    readonly pending: PendingJoin;
    readonly signal: AbortSignal;
  },
): Promise<JoinAnswer<"issue">> {
  const answer = await requestJoin(url, {
    material: { authorities: [authority] },
    peer: { cluster, node: inviter },
    body: { step: "issue", id, secret, name: pending.node, request: pending.request },
    signal,
  });
  return parseJoinAnswer("issue", answer);
}

/** The one that the token names, of those that were shown (PEM). */
function findAuthority(shown: string, { token, url }: { token: InviteToken; url: URL }): string {
  let certificates: X509Certificate[] = [];
  try {
    certificates = readCertificates(shown);
  } catch {
    // Not a certificate is not the right one.
  }
  const authority = certificates.find((one) => fingerprintOf(one) === token.authority);
  if (authority !== undefined) return authority.toString();
  throw new MmliteError(
    "untrusted",
    `Cannot join through "${token.inviter}": what answers at ${url.host} shows another CA than the token names`,
    {
      hint:
        `Find out who answers there before you go on; if "${token.inviter}" has a new CA, make a new token`,
    },
  );
}

/** The certificate last: it says that the others are there. */
async function writeCertificate(
  { certificate, authorities }: JoinAnswer<"issue">,
  { files, key, name }: { readonly files: TlsConfig; readonly key: string; readonly name: PeerName },
): Promise<void> {
  const [signed] = readCertificates(certificate);
  const named = signed === undefined ? null : peerNameOf(signed);
  if (named === null || !isSamePeer(named, name) || !signed.checkPrivateKey(createPrivateKey(key))) {
    throw new MmliteError(
      "protocol",
      "Cannot use the certificate that the member has signed: it is for another key",
    );
  }
  await replaceFile({ path: files.ca, text: authorities, secret: false });
  await replaceFile({ path: files.cert, text: certificate, secret: false });
}

/** As if nobody had tried to join: the directories go as well if nothing else is in them. */
async function removeTraces({ state, files }: CertificateOptions): Promise<void> {
  for (const path of [files.cert, files.ca, files.key]) await rm(path, { force: true });
  await removePendingJoin(state);
  for (const directory of [dirname(files.key), state]) await rmdir(directory).catch(() => {});
}
