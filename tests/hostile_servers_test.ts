/**
 * Servers that our dialler must not talk to: each is met over a real socket, named in a sentence that an operator can
 * act on, and gets not one byte of HTTP/2 to read.
 */
import "reflect-metadata";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import type net from "node:net";
import tls from "node:tls";
import { ExtendedKeyUsage } from "@peculiar/x509";
import { MmliteError } from "../src/errors.ts";
import {
  type Claims,
  selfSigned,
  TestAuthority,
  type TestCertificate,
  TestKeys,
} from "./support/certificates.ts";
import { dial, echo, openPort } from "./support/peer_ports.ts";
import { within } from "./support/poll.ts";

const authority = await TestAuthority.create();
const otherAuthority = await TestAuthority.create();
const ours = await TestKeys.create(authority, "a");

/** What came of dialling: the error, as an operator reads it. */
interface Outcome {
  readonly kind: string;
  /** Without the address. */
  readonly message: string;
  readonly hint: string;
}

async function outcomeOf(url: URL, keys = ours, connectTimeoutMs?: number): Promise<Outcome> {
  const channel = dial(url, { tls: keys, connectTimeoutMs });
  try {
    (await within("an end of dialling", 15_000, channel)).destroy();
  } catch (error) {
    assert(error instanceof MmliteError, String(error));
    const message = error.message.replace(/^Cannot reach the peer at [0-9.]+:[0-9]+: /, "");
    return { kind: error.kind, message, hint: error.hint };
  }
  throw new Error("The dialler took the channel");
}

/** A TLS server, what it could read, and the certificates that it was shown. */
async function openServer(options: tls.TlsOptions, after: (socket: tls.TLSSocket) => void = () => {}) {
  const read: Buffer[] = [];
  const shown: string[] = [];
  const sockets = new Set<net.Socket>();
  const asking = { requestCert: true, rejectUnauthorized: false };
  const all: tls.TlsOptions = { minVersion: "TLSv1.3", ALPNProtocols: ["h2"], ...asking, ...options };
  const server = tls.createServer(all, (socket) => {
    const certificate = socket.getPeerX509Certificate();
    if (certificate !== undefined) shown.push(certificate.subject);
    socket.on("data", (bytes: Buffer) => read.push(bytes)).on("error", () => {});
    after(socket);
  });
  server.on("tlsClientError", () => {});
  server.on("connection", (socket: net.Socket) => void sockets.add(socket.on("error", () => {})));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: new URL(`https://127.0.0.1:${(server.address() as net.AddressInfo).port}`),
    read: () => Buffer.concat(read),
    shown: () => shown,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const issue = (claims: Claims) => authority.issue(claims);
const NAMED = { uris: ["mmlite://mmlite/b"] };

const CERTIFICATES: [
  name: string,
  certificate: () => Promise<TestCertificate>,
  message: RegExp,
  hint: RegExp,
][] = [
  [
    "another node's certificate",
    () => authority.issueNode("c"),
    /^its certificate is for node "c", not for "b"$/,
    /Correct the address, or add the peer as "c"/,
  ],
  [
    "a certificate of another cluster",
    () => authority.issueNode("b", { cluster: "other" }),
    /^its certificate is for cluster "other", and this node is of cluster "mmlite"$/,
    /the same --cluster/,
  ],
  [
    "an expired certificate",
    () => issue({ ...NAMED, days: [-3, -1] }),
    /^its certificate has expired$/,
    /mmlite cert issue/,
  ],
  [
    "a certificate that is not valid yet",
    () => issue({ ...NAMED, days: [1, 3] }),
    /^its certificate is not valid yet$/,
    /clocks/,
  ],
  [
    "a self-signed certificate",
    () => selfSigned(NAMED),
    /^this node's CA did not sign its certificate$/,
    /from the CA whose file this node has/,
  ],
  [
    "a certificate of another CA of the same name",
    () => otherAuthority.issue(NAMED),
    /^this node's CA did not sign its certificate$/,
    /from the CA whose file this node has/,
  ],
  [
    "a certificate for clients only",
    () => issue({ ...NAMED, usages: [ExtendedKeyUsage.clientAuth] }),
    /^its certificate is not for servers and clients both$/,
    /mmlite cert issue/,
  ],
  [
    "a common name and no SAN URI",
    () => issue({ commonName: "mmlite://mmlite/b" }),
    /^its certificate is not that of an mmlite node$/,
    /mmlite cert issue/,
  ],
  [
    "two SAN URIs",
    () => issue({ uris: ["mmlite://mmlite/b", "mmlite://mmlite/c"] }),
    /^its certificate is not that of an mmlite node$/,
    /mmlite cert issue/,
  ],
];

for (const [name, certificate, message, hint] of CERTIFICATES) {
  Deno.test(`a server with ${name} is not talked to`, async () => {
    const { certificate: cert, key } = await certificate();
    await using server = await openServer({ cert, key });
    const outcome = await outcomeOf(server.url);
    assert.match(outcome.message, message);
    assert.match(outcome.hint, hint);
    assert.equal(outcome.kind, "untrusted");
    assert.equal(server.read().length, 0);
    // Who holds a certificate of the cluster's CA may know who knocks; nobody else.
    if (!/cluster|another node|common name|two SAN/.test(name)) assert.deepEqual(server.shown(), []);
  });
}

const good = await authority.issueNode("b");
const GOOD = { cert: good.certificate, key: good.key };

const PROTOCOLS: [name: string, options: tls.TlsOptions, message: RegExp][] = [
  [
    "TLS 1.2 alone",
    { minVersion: "TLSv1.2", maxVersion: "TLSv1.2", ALPNProtocols: ["h2"] },
    /^it does not speak TLS 1\.3$/,
  ],
  ["HTTP/1 alone", { ALPNProtocols: ["http/1.1"] }, /^it does not speak HTTP\/2$/],
  ["no application protocol", { ALPNProtocols: undefined }, /^it does not speak HTTP\/2$/],
];

for (const [name, options, message] of PROTOCOLS) {
  Deno.test(`a server that speaks ${name} is not talked to`, async () => {
    await using server = await openServer({ ...GOOD, ...options });
    const outcome = await outcomeOf(server.url);
    assert.match(outcome.message, message);
    assert.match(outcome.hint, /--listen address/);
    assert.equal(outcome.kind, "unreachable");
    assert.equal(server.read().length, 0);
  });
}

Deno.test("a server that speaks garbage, or nothing, over TLS is given up", async () => {
  await using babbler = await openServer(
    GOOD,
    (socket) => void socket.write(Buffer.alloc(100_000, "garbage ")),
  );
  assert.match(
    (await outcomeOf(babbler.url)).message,
    /^it does not speak HTTP\/2|^it closed the connection/,
  );
  await using silent = await openServer(GOOD);
  assert.match((await outcomeOf(silent.url, ours, 300)).message, /^no answer within 300 ms$/);
});

Deno.test("a peer that runs without TLS, and one that takes TLS only, are told apart from the rest", async () => {
  const plain = await openPort(echo);
  plain.url.protocol = "https:";
  const noTls = await outcomeOf(new URL(`https://${plain.url.host}`));
  assert.deepEqual([noTls.kind, noTls.message], ["unreachable", "it does not speak TLS"]);
  assert.match(noTls.hint, /as http:\/\/ if it runs without TLS on purpose/);
  await plain.close();

  const secure = await openPort(echo, { tls: await TestKeys.create(authority, "b") });
  const tlsOnly = await outcomeOf(new URL(`http://${secure.url.host}`));
  assert.deepEqual([tlsOnly.kind, tlsOnly.message], ["unreachable", "it takes TLS only"]);
  assert.match(tlsOnly.hint, /https:\/\//);
  await secure.close();
});

/** What this node's own certificate is when a peer turns it away, and what it is told. */
const OWN: [name: string, certificate: () => Promise<TestCertificate>, message: RegExp, hint: RegExp][] = [
  [
    "has expired",
    () => issue({ uris: ["mmlite://mmlite/a"], days: [-3, -1] }),
    /which has expired$/,
    /new cert/,
  ],
  [
    "is not valid yet",
    () => issue({ uris: ["mmlite://mmlite/a"], days: [1, 3] }),
    /is not valid yet$/,
    /clocks/,
  ],
  ["is of another CA", () => otherAuthority.issueNode("a"), /which its CA did not sign$/, /same CA file/],
  ["names no node", () => issue({ commonName: "a" }), /not that of an mmlite node$/, /cert issue/],
  [
    "is of another cluster",
    () => authority.issueNode("a", { cluster: "o" }),
    /for another cluster$/,
    /--cluster/,
  ],
];

for (const [name, certificate, message, hint] of OWN) {
  Deno.test(`a node whose own certificate ${name} is told so`, async () => {
    const port = await openPort(echo, { tls: await TestKeys.create(authority, "b") });
    const keys = new TestKeys({ ...ours.current, ...await certificate() });
    const outcome = await outcomeOf(port.url, keys);
    assert.match(outcome.message, /^it does not accept this node's certificate, /);
    assert.match(outcome.message, message);
    assert.match(outcome.hint, hint);
    assert.equal(outcome.kind, "untrusted");
    await port.close();
  });
}
