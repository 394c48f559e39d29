/**
 * What strangers, impostors and members gone mad send to the peer port of a real node that speaks TLS: each gets the
 * answer in the table, applies no row, and reads nothing that tells which node this is.
 *
 * One exception is TLS itself: it shows the node's certificate to whoever connects.
 */
import "reflect-metadata";
import { Buffer } from "node:buffer";
import { ExtendedKeyUsage } from "@peculiar/x509";
import { type Claims, forge, selfSigned, TestAuthority } from "./support/certificates.ts";
import {
  assertServes,
  attackAll,
  CLUSTER,
  MEMBER,
  openHostileBed,
  pushOf,
  shown,
} from "./support/hostile_bed.ts";
import { END_STREAM, opening, request } from "./support/raw_http2.ts";

const URI = `mmlite://${CLUSTER}/${MEMBER}`;
const ROW = pushOf(666);

Deno.test("whoever cannot prove to be a member gets a word about its certificate, and nothing else", async (t) => {
  await using bed = await openHostileBed();
  const { authority } = bed;
  const other = await TestAuthority.create();
  const member = await authority.issueNode(MEMBER, { cluster: CLUSTER });
  const issued = async (claims: Claims) => shown(await authority.issue(claims));
  const notCa = await authority.issueNode(MEMBER, { cluster: CLUSTER });
  const { clientAuth, serverAuth } = ExtendedKeyUsage;
  await attackAll(t, bed, [
    { name: "no certificate", tls: {}, bytes: ROW, outcome: /^GOAWAY 12 certificate_required$/ },
    {
      name: "self-signed, with a member's name",
      tls: shown(await selfSigned({ uris: [URI] })),
      bytes: ROW,
      outcome: /^GOAWAY 12 unknown_authority$/,
    },
    {
      name: "of another CA of the same name",
      tls: shown(await other.issue({ uris: [URI] })),
      bytes: ROW,
      outcome: /^GOAWAY 12 unknown_authority$/,
    },
    {
      name: "issued by a member, which is no CA",
      tls: shown(await forge({ uris: [URI] }, notCa)),
      bytes: ROW,
      outcome: /^GOAWAY 12 unknown_authority$/,
    },
    {
      name: "expired",
      tls: await issued({ uris: [URI], days: [-3, -1] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 certificate_expired$/,
    },
    {
      name: "not valid yet",
      tls: await issued({ uris: [URI], days: [1, 3] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 certificate_not_yet_valid$/,
    },
    {
      name: "of another cluster, from the same CA",
      tls: await issued({ uris: [`mmlite://other/${MEMBER}`] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 other_cluster$/,
    },
    {
      name: "no SAN URI, the name in CN",
      tls: await issued({ commonName: URI }),
      bytes: ROW,
      outcome: /^GOAWAY 12 bad_certificate$/,
    },
    {
      name: "two SAN URIs",
      tls: await issued({ uris: [URI, `mmlite://${CLUSTER}/b`] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 bad_certificate$/,
    },
    {
      name: "a SAN URI that says more",
      tls: await issued({ uris: [`${URI}/x`] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 bad_certificate$/,
    },
    {
      name: "for servers only",
      tls: await issued({ uris: [URI], usages: [serverAuth] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 wrong_usage$/,
    },
    {
      name: "for clients only",
      tls: await issued({ uris: [URI], usages: [clientAuth] }),
      bytes: ROW,
      outcome: /^GOAWAY 12 wrong_usage$/,
    },
    {
      name: "a member's, over TLS 1.2",
      tls: { ...shown(member), maxVersion: "TLSv1.2" },
      bytes: ROW,
      outcome: /^ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION$/,
    },
    {
      name: "a member's, for HTTP/1",
      tls: { ...shown(member), ALPNProtocols: ["http/1.1"] },
      bytes: ROW,
      outcome: /^ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL$/,
    },
    {
      name: "a member's, for no protocol",
      tls: { ...shown(member), ALPNProtocols: undefined },
      bytes: ROW,
      outcome: /^closed$/,
    },
    {
      name: "HTTP/1 without TLS",
      bytes: Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
      outcome: /^HTTP\/1\.1 400: This is mmlite's peer port.*TLS with a client certificate only/,
    },
    { name: "HTTP/2 without TLS", bytes: ROW, outcome: /^GOAWAY 12 tls_required$/ },
    { name: "random bytes", bytes: Buffer.alloc(5000, "?!random"), outcome: /^HTTP\/1\.1 400: / },
    {
      name: "half a ClientHello, then silence",
      bytes: Buffer.from("16030102000100", "hex"),
      outcome: /^closed$/,
      withinMs: 12_000,
    },
    { name: "silence", bytes: Buffer.alloc(0), outcome: /^closed$/, withinMs: 12_000 },
    {
      name: "asks to join while no invite is open",
      tls: {},
      bytes: Buffer.concat([
        opening(),
        request(1, { method: "GET", path: "/mmlite/v1/ca", flags: END_STREAM }),
      ]),
      outcome: /^GOAWAY 12 certificate_required$/,
    },
  ]);
  await assertServes(bed);
});
