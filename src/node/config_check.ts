/**
 * The parts of a configuration that stay text until a node uses them: read here without connecting anywhere, for
 * `mmlite config check`.
 */
import type { Config } from "../config.ts";
import type { Environment } from "../config/environment.ts";
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
