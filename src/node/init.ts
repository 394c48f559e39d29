/**
 * `mmlite init`: what `mmlite run` would create in the database at its first start, ahead of time or only shown.
 */
import type { Config } from "../config.ts";
import { ensureOrigin, originName } from "../pg/progress.ts";
import { readKnownTables } from "../pg/known_tables.ts";
import {
  ensurePublications,
  planPublications,
  type Publication,
  publicationStatements,
  readPublications,
} from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { ensureSchema, readSchemaSteps, schemaStatements } from "../pg/schema.ts";
import { requireUsable } from "../pg/server.ts";
import { describeTarget } from "../pg/target.ts";
import { reachDatabase } from "./database.ts";
import { findFresh, withoutFresh } from "./fresh_tables.ts";
import { planTables } from "./publication_keeper.ts";
import { TablePatterns } from "./table_patterns.ts";

/** Creates schema, publications and origins, or with `dryRun` nothing; returns the SQL, in order. */
export async function initNode(config: Config, { dryRun }: { dryRun: boolean }): Promise<string[]> {
  const { target, control, facts } = await reachDatabase(config.postgres.url);
  try {
    requireUsable(facts);
    const query = control.query(`set up ${describeTarget(target)}`);
    const wanted = await planWanted(query, { config, serverVersion: facts.versionNumber });
    const statements = [
      ...schemaStatements(await readSchemaSteps(query)),
      ...publicationStatements(wanted, {
        present: await readPublications(query),
        serverVersion: facts.versionNumber,
      }),
      ...config.peers.map(({ name }) => `SELECT pg_replication_origin_create('${originName(name)}')`),
    ];
    if (dryRun) return statements;
    await ensureSchema(query);
    await ensurePublications(query, { wanted, serverVersion: facts.versionNumber });
    for (const { name } of config.peers) await ensureOrigin(query, name);
    return statements;
  } finally {
    await control.close();
  }
}

/** Where a node has run already, by its patterns; a table that is new since it looked last is left to it, with its rows. */
async function planWanted(
  query: Query,
  { config, serverVersion }: { readonly config: Config; readonly serverVersion: number },
): Promise<Publication[]> {
  const patterns = new TablePatterns(config.tables);
  const [{ found }] = await query("SELECT to_regclass('mmlite.known_tables') AS found");
  const known = found === null ? undefined : await readKnownTables(query);
  if (found !== null) await patterns.load(query);
  const { present, tables } = await planTables(query, { patterns, serverVersion });
  const { fresh } = known === undefined ? { fresh: [] } : await findFresh(query, { tables, known, present });
  return planPublications(withoutFresh(tables, fresh), serverVersion);
}
