/**
 * `mmlite init`: what `mmlite run` would create in the database at its first start, ahead of time or only shown.
 */
import type { Config } from "../config.ts";
import { ensureOrigin, originName } from "../pg/progress.ts";
import { ensurePublications, publicationStatements, readPublications } from "../pg/publication.ts";
import { ensureSchema, readSchemaSteps, schemaStatements } from "../pg/schema.ts";
import { requireUsable } from "../pg/server.ts";
import { describeTarget } from "../pg/target.ts";
import { reachDatabase } from "./database.ts";
import { planTables } from "./publication_keeper.ts";

/** Creates schema, publications and origins, or with `dryRun` nothing; returns the SQL, in order. */
export async function initNode(config: Config, { dryRun }: { dryRun: boolean }): Promise<string[]> {
  const { target, control, facts } = await reachDatabase(config.postgres.url);
  try {
    requireUsable(facts);
    const query = control.query(`set up ${describeTarget(target)}`);
    const publications = await planTables(query, config.tables, facts.versionNumber);
    const statements = [
      ...schemaStatements(await readSchemaSteps(query)),
      ...publicationStatements(publications.wanted, {
        present: await readPublications(query),
        serverVersion: facts.versionNumber,
      }),
      ...config.peers.map(({ name }) => `SELECT pg_replication_origin_create('${originName(name)}')`),
    ];
    if (dryRun) return statements;
    await ensureSchema(query);
    await ensurePublications(query, { wanted: publications.wanted, serverVersion: facts.versionNumber });
    for (const { name } of config.peers) await ensureOrigin(query, name);
    return statements;
  } finally {
    await control.close();
  }
}
