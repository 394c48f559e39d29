/**
 * The parts of a configuration that stay text until a node uses them: read here without connecting anywhere, for
 * `mmlite config check`.
 */
import type { Config } from "../config.ts";
import type { Environment } from "../config/environment.ts";
import { describeTarget, parsePostgresUrl } from "../pg/target.ts";

/** The database that the configuration means, such as `app at /run/postgresql:5432`; throws `config`. */
export async function describeDatabase({ postgres }: Config, env: Environment): Promise<string> {
  return describeTarget(await parsePostgresUrl(postgres.url, env));
}
