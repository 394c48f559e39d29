import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { TestAuthority } from "../../tests/support/certificates.ts";
import {
  type Authority,
  createAuthority,
  createRequest,
  issueCertificate,
  readAuthority,
  renewCertificate,
  signRequest,
} from "./authority.ts";
import { findAuthority, isTrusted, servesBothEnds } from "./certificate.ts";
import { peerNameOf } from "./identity.ts";

const DAY_MS = 24 * 60 * 60_000;
const AMS = { name: { cluster: "shop", node: "ams" }, hosts: [], days: 30 };

async function withFiles(
  files: Record<string, string>,
  use: (place: (name: string) => string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(join(directory, name), text, { mode: 0o600 });
    }
    await use((name) => join(directory, name));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function stands(certificate: string, { certificate: authority }: Authority): boolean {
  return isTrusted([new X509Certificate(certificate)], [authority.toString()]);
}

Deno.test("a certificate is for its node, at both ends, and for its days", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 100 });
  const { certificate, key } = await issueCertificate(authority, AMS);
  const parsed = new X509Certificate(certificate);
  assert(stands(certificate, authority));
  assert(!stands(certificate, await createAuthority({ cluster: "shop", days: 100 })));
  assert.deepEqual(peerNameOf(parsed), AMS.name);
  assert.equal(parsed.ca, false);
  assert(servesBothEnds(parsed));
  assert.match(key, /^-----BEGIN PRIVATE KEY-----\n/);
  assert(Math.abs(Date.parse(parsed.validTo) - Date.now() - 30 * DAY_MS) < 60_000);
  assert(Date.parse(parsed.validFrom) < Date.now() - 60_000, "clocks of hosts differ");
});

Deno.test("no certificate outlives its authority", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 10 });
  const { certificate } = await issueCertificate(authority, AMS);
  assert.equal(new X509Certificate(certificate).validTo, authority.certificate.validTo);
});

Deno.test("an authority issues for its own cluster only", async () => {
  const authority = await createAuthority({ cluster: "bank", days: 10 });
  await assert.rejects(issueCertificate(authority, AMS), {
    kind: "invalid_input",
    message: 'Cannot issue a certificate for mmlite://shop/ams: the CA is that of cluster "bank"',
  });
});

Deno.test("a node's certificate vouches for nobody", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 10 });
  const node = await issueCertificate(authority, AMS);
  const impostor = await issueCertificate(
    { certificate: new X509Certificate(node.certificate), key: node.key, cluster: null },
    { ...AMS, name: { cluster: "shop", node: "fra" } },
  );
  const chain = [impostor.certificate, node.certificate].map((pem) => new X509Certificate(pem));
  assert.equal(findAuthority(chain, [authority.certificate]), null);
  assert.equal(findAuthority(chain, [chain[1]]), null);
});

Deno.test("an authority between vouches under the one above it", async () => {
  const root = await TestAuthority.create();
  const between = await root.createIntermediate();
  const node = await between.issueNode("ams");
  const [leaf, middle] = [node.certificate, between.certificate].map((pem) => new X509Certificate(pem));
  assert(isTrusted([leaf, middle], [root.certificate]));
  assert(isTrusted([leaf], [between.certificate]));
  assert(!isTrusted([leaf], [root.certificate]));
  assert(!isTrusted([middle, leaf], [between.certificate]), "the first is the one to prove");
});

Deno.test("a renewed certificate is for the same key", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 100 });
  const first = await issueCertificate(authority, AMS);
  const second = await renewCertificate(authority, { key: first.key, subject: { ...AMS, days: 60 } });
  const [before, after] = [first.certificate, second].map((pem) => new X509Certificate(pem));
  assert(before.publicKey.equals(after.publicKey));
  assert(Date.parse(after.validTo) > Date.parse(before.validTo));
  assert.notEqual(after.serialNumber, before.serialNumber);
  assert(stands(second, authority));
});

Deno.test("a request yields a certificate for its key, whatever else it says", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 100 });
  const { request, key } = await createRequest();
  const certificate = new X509Certificate(await signRequest(authority, request, AMS));
  assert.deepEqual(peerNameOf(certificate), AMS.name);
  const again = new X509Certificate(await renewCertificate(authority, { key, subject: AMS }));
  assert(certificate.publicKey.equals(again.publicKey));
});

Deno.test("a request that is odd, changed, or of another kind of key is refused", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 100 });
  const { request } = await createRequest();
  const der = Uint8Array.from(atob(request.replaceAll(/-.*-|\s/g, "")), (char) => char.charCodeAt(0));
  const changed = der.with(der.length - 10, der[der.length - 10] ^ 1);
  const pem = (bytes: Uint8Array) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${
      btoa(String.fromCharCode(...bytes))
    }\n-----END CERTIFICATE REQUEST-----`;
  for (
    const text of [
      "",
      "x",
      authority.certificate.toString(),
      pem(der.slice(0, -1)),
      pem(changed),
      RSA_REQUEST,
    ]
  ) {
    await assert.rejects(signRequest(authority, text, AMS), {
      kind: "invalid_input",
      message: /^Cannot sign the certificate request: /,
    });
  }
});

/** Made by `openssl req -new -newkey rsa:2048`. */
const RSA_REQUEST = `-----BEGIN CERTIFICATE REQUEST-----
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBeDCCASIwDQYJKoZIhvcNAQEBBQADggEP
ADCCAQoCggEBANbMnq1M/BaeOj72wbkgnzZADP4+532izfQ/FLMKHwZuacoErNKa
gwGBWEFyqoig++krB06HBPFhSNh6aazdL6eX885B5ff/Saq1uWbhr7pZqSgClw4a
xaxwO/14BFMmCKSZUDxp2LiT9NjmEE0Db4bEQU2+1GsgzJt1IV+xyoEiKucCCnDs
ltw83Db9lIIBKuMbJ8T8Q2gwSYipnSI+XOC8THEzLZsBVEi/yCH5A+i3l2CVBRaR
wjDpIidR4qsGAHz4yv53BgAqnqdFM10B+IuH1z+U5cHsvGQ+DogGOHwfy8pQVcdw
vsaKjnQ4LkF7TXVuf9uEUoiDx19nHb03C/cCAwEAAaAAMA0GCSqGSIb3DQEBCwUA
A4IBAQCyuA0N9esR8biDBNkDjkvWqK14skvCS6/FYeF34l9zQxqdKCHAYOhkQezI
96paS1usUqNT9afCfaa+bw2CaWon7h6fxiCi6i6ACu7+fOlTWA9vJd0ovxXJ06T7
N9VNr5qpIzO28e0PcVwoceCg499asnHRkocCRtJX8Jjf5470MbuYb7teawVa7BCZ
F6qfDse+g3+C9l7ToGatOfmqAODK3TJ4bfyqorDX61/PaPszV7BMlFGcNKznsB0T
vAlycLxlHjZVzeeOkDS1fjF9wOVSQ/JTUaem+7851VD4OM0PPHecX49VHFv/dSs2
RDf9GSRfuqtq5mmkuYPIgF1PJ/gC
-----END CERTIFICATE REQUEST-----
`;

Deno.test("of several authorities in a file, the one is used whose key is there", async () => {
  const [old, current] = [
    await createAuthority({ cluster: "shop", days: 5 }),
    await createAuthority({ cluster: "shop", days: 50 }),
  ];
  const ca = [old, current].map(({ certificate }) => certificate.toString()).join("");
  const files = { "ca.pem": ca, "ca-key.pem": current.key, "other.pem": (await createRequest()).key };
  await withFiles(files, async (place) => {
    const read = await readAuthority({ ca: place("ca.pem"), caKey: place("ca-key.pem") });
    assert.equal(read.certificate.serialNumber, current.certificate.serialNumber);
    assert.equal(read.cluster, "shop");
    await assert.rejects(readAuthority({ ca: place("ca.pem"), caKey: place("other.pem") }), {
      kind: "config",
      message: /^Cannot use CA key file ".*other\.pem": ".*ca\.pem" holds no CA of it$/,
    });
    await assert.rejects(readAuthority({ ca: place("ca.pem"), caKey: place("ca.pem") }), {
      message: /ca\.pem": it holds no private key in PEM form without a password$/,
    });
    await Deno.chmod(place("ca-key.pem"), 0o644);
    await assert.rejects(readAuthority({ ca: place("ca.pem"), caKey: place("ca-key.pem") }), {
      message: /^Cannot use CA key file ".*": every user may read or write it$/,
    });
  });
});

Deno.test("an authority of other make may have another kind of key", async () => {
  const pairs = [
    generateKeyPairSync("rsa", { modulusLength: 2048 }),
    generateKeyPairSync("ec", { namedCurve: "P-384" }),
  ];
  for (const { privateKey } of pairs) {
    const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
    const authority = await createAuthority({ cluster: "shop", days: 10 });
    const issued = await issueCertificate({ ...authority, key }, AMS);
    assert.deepEqual(peerNameOf(new X509Certificate(issued.certificate)), AMS.name);
  }
  const { privateKey } = generateKeyPairSync("ed25519");
  const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  await assert.rejects(
    issueCertificate({ ...await createAuthority({ cluster: "shop", days: 1 }), key }, AMS),
    {
      kind: "config",
      message: "Cannot issue certificates with a CA key of type ed25519",
    },
  );
});
