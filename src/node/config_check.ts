/**
 * The parts of a configuration that stay text until a node uses them: read here without connecting anywhere and
 * without changing anything, for `mmlite config check`.
 */
import { existsSync } from "node:fs";
import type { Config } from "../config.ts";
import type { Environment } from "../config/environment.ts";
import { readAuthority } from "../pki/authority.ts";
import { formatPeerUri } from "../pki/identity.ts";
import { TlsKeys } from "../pki/tls_keys.ts";
import { tableMatcher } from "../pg/table_pattern.ts";
import { describeTarget, parsePostgresUrl } from "../pg/target.ts";

/**
 * Reads connection string and table patterns; the database they are about, such as `app at /run/postgresql:5432`.
 * Throws `config`.
 */
export async function checkDatabase({ postgres, tables }: Config, env: Environment): Promise<string> {
  tableMatcher(tables);
  return describeTarget(await parsePostgresUrl(postgres.url, env));
}

/** Reads the files of TLS; who the node is by its certificate, or null for cleartext. Throws `config`. */
export async function checkTls({ node, listen: { peers: { tls } } }: Config): Promise<string | null> {
  if (tls === null) return null;
  const name = { cluster: node.cluster, node: node.name };
  const { ca, caKey, cert } = tls;
  // Such a node issues itself a certificate when it runs.
  if (caKey !== null && !existsSync(cert)) await readAuthority({ ca, caKey });
  else await TlsKeys.load(tls, name);
  return formatPeerUri(name);
}
