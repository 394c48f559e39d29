import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { TestAuthority } from "../../tests/support/certificates.ts";
import { createAuthority } from "./authority.ts";
import { clusterOf, formatPeerUri, parsePeerUri, peerNameOf } from "./identity.ts";

Deno.test("a node has one URI, and one spelling of it", () => {
  assert.equal(formatPeerUri({ cluster: "shop", node: "ams-1" }), "mmlite://shop/ams-1");
  assert.deepEqual(parsePeerUri("mmlite://shop/ams-1"), { cluster: "shop", node: "ams-1" });
  for (
    const text of [
      "",
      "mmlite://shop",
      "mmlite://shop/",
      "mmlite:///ams",
      "mmlite://shop/ams/",
      "mmlite://shop/ams?x",
      "mmlite://shop/Ams",
      "mmlite://shop:1/ams",
      "mmlite://u@shop/ams",
      "MMLITE://shop/ams",
      "mmlite:/shop/ams",
      "https://shop/ams",
      " mmlite://shop/ams",
      "mmlite://shop/ams\n",
      "mmlite://shop/%61ms",
    ]
  ) assert.equal(parsePeerUri(text), null, text);
});

Deno.test("a certificate names a node by exactly one URI, and by nothing else", async () => {
  const authority = await TestAuthority.create();
  const nameIn = async (uris: string[], commonName?: string) => {
    const { certificate } = await authority.issue({ uris, commonName });
    return peerNameOf(new X509Certificate(certificate));
  };
  const ams = { cluster: "shop", node: "ams" };
  assert.deepEqual(await nameIn(["mmlite://shop/ams"], "fra"), ams);
  assert.deepEqual(await nameIn(["https://example.org/", "mmlite://shop/ams"]), ams);
  assert.equal(await nameIn([], "mmlite://shop/ams"), null);
  assert.equal(await nameIn(["https://example.org/"]), null);
  assert.equal(await nameIn(["mmlite://shop/ams", "mmlite://shop/fra"]), null);
  assert.equal(await nameIn(["mmlite://shop/ams", "mmlite://shop/ams"]), null);
  assert.equal(await nameIn(["mmlite://shop/ams", "MMLITE:other"]), null);
  assert.equal(await nameIn(["mmlite://shop/AMS"]), null);
});

/**
 * Made by `openssl req -x509` of OpenSSL 3.0 with `DNS.1=a.b, URI:mmlite://shop/evil` and
 * `URI.1=mmlite://shop/ams`: Deno 2.9 prints these two names as if they were three.
 */
const NAME_IN_A_NAME = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR6gAwIBAgIUfVxPHdzFd1NvP6IGyITG8ZyDtR8wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAgFw0yNjExMjMwMTQ3NDVaGA8yMTI2MTAzMDAxNDc0NVow
DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIGySpvv19j1
6e8W5fOG4KaKaGHjPcc9TU9LlBD0g97whs01pjCBmavtnqrEbVl6lYNd9qe8Y/em
fITQv42xXYKjXDBaMDkGA1UdEQQyMDCCG2EuYiwgVVJJOm1tbGl0ZTovL3Nob3Av
ZXZpbIYRbW1saXRlOi8vc2hvcC9hbXMwHQYDVR0OBBYEFK4cP7g5WzvmIevWZm0q
51qE+ZxmMAoGCCqGSM49BAMCA0cAMEQCIFD4rYOdiBSQ9Io5H8EyIW+cldhcbR/g
s+AVUUzACsgLAiA73zlPTT9KpiL+5PE7eYBWTkQLo4GQt4KC0Bv4hKW8UA==
-----END CERTIFICATE-----
`;

Deno.test("a DNS name that reads like a URI is none", () => {
  assert.deepEqual(peerNameOf(new X509Certificate(NAME_IN_A_NAME)), { cluster: "shop", node: "ams" });
});

Deno.test("an authority names its cluster, one of other make none", async () => {
  const { certificate } = await createAuthority({ cluster: "shop", days: 1 });
  assert.equal(clusterOf(certificate), "shop");
  assert.equal(peerNameOf(certificate), null);
  const other = await TestAuthority.create();
  assert.equal(clusterOf(new X509Certificate(other.certificate)), null);
  const node = await other.issueNode("ams", { cluster: "shop" });
  assert.equal(clusterOf(new X509Certificate(node.certificate)), null);
});
