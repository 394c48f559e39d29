/**
 * `deno task containers`: the tests that run PostgreSQL and mmlite as containers, where a Docker daemon answers; where
 * none does they are skipped, which `MMLITE_REQUIRE_DOCKER=1` makes a failure.
 *
 * `MMLITE_PROGRAM` names the executable to test; without it one is compiled. Whatever becomes of the tests, no
 * container, network, volume or image of theirs is left.
 */
import { join, resolve } from "node:path";
import process from "node:process";
import { findDocker, removeLeftovers } from "./docker_socket.ts";
import { readOptions } from "./options.ts";
import { formatOutcome, type Outcome, runDeno, runTests } from "./test_outcome.ts";

const ROOT = join(import.meta.dirname!, "..");
const SUITE = join(ROOT, "tests/containers");
const TESTS = join(SUITE, "sites_test.ts");
const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Runs the tests, or counts them as skipped. */
export async function runContainers(): Promise<Outcome> {
  if (Deno.build.os !== "linux") return await skip("images are made of this machine's programs, for Linux");
  const docker = await findDocker(process.env);
  if ("missing" in docker) return await skip(docker.missing);
  const given = process.env.MMLITE_PROGRAM;
  const executable = given ? resolve(given) : await compile();
  if (executable === null) return { passed: 0, failed: 1, skipped: 0 };
  const run = `mmlite-test-${process.pid}`;
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  for (const name of SIGNALS) process.on(name, interrupt);
  try {
    return await runTests(["--config", join(SUITE, "deno.json"), TESTS], {
      env: {
        DOCKER_HOST: `unix://${docker.socket}`,
        MMLITE_CONTAINERS_RUN: run,
        MMLITE_PROGRAM: executable,
        // Its image is in a registry; what is left here is removed below.
        TESTCONTAINERS_RYUK_DISABLED: "true",
      },
      signal: stop.signal,
    });
  } finally {
    for (const name of SIGNALS) process.off(name, interrupt);
    await removeLeftovers(docker.socket, run);
  }
}

async function skip(reason: string): Promise<Outcome> {
  const tests = (await Deno.readTextFile(TESTS)).match(/^Deno\.test\(/gm)?.length ?? 0;
  if (process.env.MMLITE_REQUIRE_DOCKER === "1") {
    console.log(`The tests with containers failed: ${reason}, and MMLITE_REQUIRE_DOCKER is set`);
    return { passed: 0, failed: tests, skipped: 0 };
  }
  console.log(`The tests with containers are skipped: ${reason}`);
  return { passed: 0, failed: 0, skipped: tests };
}

async function compile(): Promise<string | null> {
  const { success } = await runDeno(["task", "compile"]);
  return success ? join(ROOT, "dist/mmlite") : null;
}

if (import.meta.main) {
  readOptions(import.meta.url, {});
  const outcome = await runContainers();
  console.log(formatOutcome(outcome));
  process.exitCode = outcome.failed > 0 ? 1 : 0;
}
