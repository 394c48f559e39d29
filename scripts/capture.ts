/**
 * `deno task capture [MAJOR]…`: runs the scenario on a real server of every major release and writes what pgoutput sent
 * to `tests/golden/`. Without MAJOR all are taken.
 *
 * The messages are read through SQL, which gives the same bytes as a replication connection.
 */
import type { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import type pg from "pg";
import { decodeMessage } from "../src/pgoutput/decode.ts";
import { type Golden, goldenForm, type GoldenMessage, writeGolden } from "../tests/support/golden.ts";
import {
  POSTGRES_MAJORS,
  type PostgresMajor,
  type PostgresServer,
  type ServerSettings,
  startPostgres,
} from "../tests/support/postgres.ts";
import { CAPTURE_STEPS, type CaptureStep, setupStatements } from "./capture_scenario.ts";
import { readNames, refuseOptions } from "./options.ts";

/** Settings of the server to capture from. */
function settingsOf(major: PostgresMajor): ServerSettings {
  return {
    // It would add transactions of its own.
    autovacuum: "off",
    // So small that the step with a large transaction passes it.
    ...(major >= 13 ? { logical_decoding_work_mem: "64kB" } : {}),
  };
}

const majors = chosenMajors(readNames(import.meta.url));
for (const major of majors) {
  const golden = await capture(major);
  await writeGolden(major, golden);
  console.log(`PostgreSQL ${golden.serverVersion}: ${golden.messages.length} messages`);
}
console.log(`Captured what ${majors.length} releases of PostgreSQL send into tests/golden.`);

function chosenMajors(names: readonly string[]): readonly PostgresMajor[] {
  const unknown = names.find((name) => !POSTGRES_MAJORS.some((major) => String(major) === name));
  if (unknown !== undefined) {
    refuseOptions(`Cannot capture from PostgreSQL "${unknown}": no such release here`);
  }
  return names.length === 0
    ? POSTGRES_MAJORS
    : POSTGRES_MAJORS.filter((major) => names.includes(String(major)));
}

async function capture(major: PostgresMajor): Promise<Golden> {
  await using server = await startPostgres({ major, settings: settingsOf(major) });
  const client = await server.connect("postgres");
  try {
    for (const statement of setupStatements(major)) await client.query(statement);
    await client.query("select pg_create_logical_replication_slot('capture', 'pgoutput')");
    const messages: GoldenMessage[] = [];
    for (const step of CAPTURE_STEPS) {
      if (major >= (step.since ?? 0)) messages.push(...await captureStep({ server, client, step }));
    }
    const { rows } = await client.query("show server_version");
    return { serverVersion: rows[0].server_version, messages };
  } finally {
    await client.end();
  }
}

/** Runs one step and takes from the slot what it caused. */
async function captureStep(
  { server, client, step }: { server: PostgresServer; client: pg.Client; step: CaptureStep },
): Promise<GoldenMessage[]> {
  for (const statement of step.statements) await client.query(statement);
  const options = [
    ...["proto_version", "1"],
    ...["publication_names", step.publication ?? "mmlite"],
    ...(step.options ?? []),
  ];
  // On a connection of its own: the plugin takes one of ten places in the backend each time, for good.
  const rows: { data: Buffer }[] = await server.sql(
    "postgres",
    "select data from pg_logical_slot_get_binary_changes('capture', null, null, variadic $1)",
    [options],
  );
  return rows.map(({ data }) => ({
    step: step.title,
    hex: data.toString("hex"),
    message: goldenForm(decodeMessage(data)),
  }));
}
