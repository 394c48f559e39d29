import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { tlsFilesIn } from "../config/tls.ts";
import { type Authority, createAuthority, issueCertificate } from "../pki/authority.ts";
import { peerNameOf } from "../pki/identity.ts";
import { createFiles, replaceFile } from "../pki/key_files.ts";
import { formatHostName, hostNames } from "../pki/subject_names.ts";
import { ensureCertificate } from "./own_certificate.ts";
import { tlsProblems } from "./tls.ts";
import { TlsKeys } from "../pki/tls_keys.ts";

const DAY_MS = 24 * 60 * 60_000;
const OWNER = {
  name: { cluster: "shop", node: "ams" },
  hosts: [{ kind: "dns" as const, text: "ams.example" }],
};

/** A place with a CA and its key; the CA lasts 3650 days. */
async function withAuthority(
  use: (files: ReturnType<typeof tlsFilesIn>, authority: Authority) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const files = tlsFilesIn(directory);
    const authority = await createAuthority({ cluster: "shop", days: 3650 });
    await createFiles([
      { path: files.ca, text: authority.certificate.toString(), secret: false },
      { path: files.caKey, text: authority.key, secret: true },
    ]);
    await use(files, authority);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function certificateIn(path: string): Promise<X509Certificate> {
  return new X509Certificate(await Deno.readTextFile(path));
}

Deno.test("a node with the CA's key and no certificate issues itself one, a node without does not", async () => {
  await withAuthority(async (files) => {
    assert.equal(await ensureCertificate({ ...files, caKey: null }, OWNER), false);
    assert.equal(await ensureCertificate(files, OWNER), true);
    const certificate = await certificateIn(files.cert);
    assert.deepEqual(peerNameOf(certificate), OWNER.name);
    assert.deepEqual(hostNames(certificate).map(formatHostName), ["dns:ams.example"]);
    assert.equal(await ensureCertificate(files, OWNER), false);
    const key = await Deno.readTextFile(files.key);
    await Deno.remove(files.cert);
    assert.equal(await ensureCertificate(files, OWNER), true, "for the key that is there");
    assert.equal(await Deno.readTextFile(files.key), key);
    assert.equal((await TlsKeys.load(files, OWNER.name)).problem, null);
  });
});

Deno.test("a certificate of the node's own CA is renewed in the last third of its life, with its key", async () => {
  await withAuthority(async (files, authority) => {
    await ensureCertificate(files, OWNER);
    const first = await certificateIn(files.cert);
    const key = await Deno.readTextFile(files.key);
    const inDays = (days: number) => ensureCertificate(files, OWNER, Date.now() + days * DAY_MS);
    assert.equal(await inDays(540), false);
    assert.equal(await inDays(560), true);
    const second = await certificateIn(files.cert);
    assert.notEqual(second.serialNumber, first.serialNumber);
    assert.equal(await Deno.readTextFile(files.key), key);
    assert.deepEqual(hostNames(second), hostNames(first));
    assert.equal(await inDays(900), true, "even when it has expired");

    // What another CA issued, and what cannot last longer, is left alone.
    const other = await issueCertificate(await createAuthority({ cluster: "shop", days: 90 }), {
      ...OWNER,
      days: 90,
    });
    await replaceFile({ path: files.cert, text: other.certificate, secret: false });
    assert.equal(await inDays(80), false);
    const longest = await issueCertificate(authority, { ...OWNER, days: 3650 });
    await replaceFile({ path: files.cert, text: longest.certificate, secret: false });
    assert.equal(await inDays(3640), false);
  });
});

Deno.test("what expires within 30 days is a problem", async () => {
  await withAuthority(async (files) => {
    await ensureCertificate(files, OWNER);
    const keys = await TlsKeys.load(files, OWNER.name);
    const messages = (days: number) =>
      tlsProblems(keys, Date.now() + days * DAY_MS).map(({ message }) =>
        message.replaceAll(/20\d\d-\S+Z/g, "TIME")
      );
    assert.deepEqual(messages(794), []);
    assert.deepEqual(messages(796), [
      "Cannot connect to peers after TIME: this node's certificate expires then",
    ]);
    assert.deepEqual(messages(826), ["Cannot connect to peers: this node's certificate expired at TIME"]);
    assert.equal(messages(3630).length, 2);
    assert.equal(messages(3630)[1], "Cannot connect to peers after TIME: the CA's certificate expires then");
    await Deno.remove(files.key);
    await keys.reload();
    assert.match(messages(0)[0], /^Cannot read key file /);
  });
});
