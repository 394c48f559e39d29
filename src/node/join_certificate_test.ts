import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:tls";
import { join } from "node:path";
import { TestAuthority } from "../../tests/support/certificates.ts";
import { makeScratch, removeScratch } from "../../tests/support/scratch.ts";
import { goAway } from "../http/turn_away.ts";
import { createRequest } from "../pki/authority.ts";
import { createFiles, ensureKeyDirectory } from "../pki/key_files.ts";
import { ensureJoinCertificate } from "./join_certificate.ts";
import { readPendingJoin, writePendingJoin } from "./pending_join.ts";

Deno.test("a key that may be signed stays, whatever somebody says who has proven nothing", async () => {
  const state = await makeScratch("join-certificate");
  const place = (name: string) => join(state, "tls", name);
  const files = { cert: place("node.pem"), key: place("node-key.pem"), ca: place("ca.pem"), caKey: null };
  const name = { cluster: "mmlite", node: "fra" };
  const { request, key } = await createRequest();
  await ensureKeyDirectory(join(state, "tls"));
  await writePendingJoin(state, { ...name, inviter: "ams", urls: ["https://127.0.0.1:1"], request });
  await createFiles([{ path: files.key, text: key, secret: true }]);

  const shown = await (await TestAuthority.create()).issue({ uris: ["mmlite://mmlite/ams"] });
  const server = createServer(
    { cert: shown.certificate, key: shown.key, minVersion: "TLSv1.3", ALPNProtocols: ["h2"] },
    (socket) => goAway(socket, "certificate_required"),
  );
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const urls = [`https://127.0.0.1:${(server.address() as AddressInfo).port}`];
  const expiresAt = new Date(Date.now() + 3_600_000);
  const token = { cluster: "mmlite", inviter: "ams", urls, authority: "x", id: "1", secret: "s", expiresAt };
  const { signal } = new AbortController();
  const joining = ensureJoinCertificate({ state, files, name, token, say: () => {}, signal });
  await assert.rejects(joining, { kind: "refused", message: /no invite is open there/ });
  server.close();
  assert.ok(existsSync(files.key));
  assert.equal((await readPendingJoin(state))?.request, request);
  await removeScratch(state);
});
