import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { createAuthority, issueCertificate } from "./authority.ts";
import { formatHostName, hostNames, parseHostName, subjectNames } from "./subject_names.ts";

Deno.test("hosts are dns: and ip:", () => {
  assert.deepEqual(parseHostName("dns:fra.example"), { kind: "dns", text: "fra.example" });
  assert.deepEqual(parseHostName("ip:192.0.2.7"), { kind: "ip", text: "192.0.2.7" });
  assert.deepEqual(parseHostName("ip:2001:DB8:0::1"), { kind: "ip", text: "2001:db8::1" });
  for (
    const text of [
      "",
      "fra.example",
      "dns:",
      "dns:a b",
      "dns:a..b",
      "dns:-a",
      "dns:a,b",
      "dns:192.0.2.7",
      `dns:${"a".repeat(64)}`,
      "ip:fra",
      "ip:1.2.3",
      "ip:fe80::1%eth0",
      "uri:mmlite://shop/ams",
    ]
  ) assert.equal(parseHostName(text), null, text);
});

Deno.test("what a certificate was issued with can be read from it", async () => {
  const authority = await createAuthority({ cluster: "shop", days: 1 });
  const hosts = ["dns:fra.example", "ip:192.0.2.7", "ip:2001:db8::1", "ip:::ffff:192.0.2.7"].map((text) =>
    parseHostName(text)!
  );
  const name = { cluster: "shop", node: "fra" };
  const issued = await issueCertificate(authority, { name, hosts, days: 1 });
  const certificate = new X509Certificate(issued.certificate);
  assert.deepEqual(subjectNames(certificate)[0], { kind: "uri", text: "mmlite://shop/fra" });
  assert.deepEqual(hostNames(certificate).map(formatHostName), [
    "dns:fra.example",
    "ip:192.0.2.7",
    "ip:2001:db8::1",
    "ip:::ffff:c000:207",
  ]);
});
