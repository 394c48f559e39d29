/**
 * Three sites in containers: they replicate, are cut off, killed and upgraded, and in the end have each row once.
 * `deno task containers` runs this where there is a Docker daemon.
 */
import assert from "node:assert/strict";
import { APPEND_SCHEMA, AppendWriter, assertAppended, seededIntegers } from "../support/append_load.ts";
import { eventually } from "../support/poll.ts";
import { createNetwork } from "./docker.ts";
import { buildImages, type Images } from "./images.ts";
import { Site } from "./site.ts";

/** Time allowed for sites to notice that one is gone, milliseconds: its connections end without a word. */
const NOTICE_TIMEOUT_MS = 45_000;
/** Time allowed for a site to be in touch again after a fault, and for all to have the same, milliseconds. */
const RECOVERY_TIMEOUT_MS = 90_000;
/** Transactions of each site between two faults, and the pause after each, milliseconds. */
const TRANSACTIONS = 30;
const PAUSE_MS = 100;

let building: Promise<Images> | undefined;

/** Three sites, peers of each other, with nobody writing. */
interface Sites extends AsyncDisposable {
  readonly a: Site;
  readonly b: Site;
  readonly c: Site;
  readonly all: readonly Site[];
}

async function startSites(): Promise<Sites> {
  const images = await (building ??= buildImages());
  await using stack = new AsyncDisposableStack();
  const wan = await createNetwork("wan");
  stack.defer(() => wan.remove());
  const { mmlite, newPostgres, oldPostgres } = images;
  const make = async (name: string, postgres: string) =>
    stack.use(await Site.make({ name, postgres, mmlite, wan, schema: APPEND_SCHEMA }));
  const [a, b, c] = await Promise.all([
    make("a", newPostgres),
    make("b", oldPostgres),
    make("c", newPostgres),
  ]);
  await a.found();
  await b.join(a);
  await c.join(a);
  const sites = { a, b, c, all: [a, b, c] };
  await connected(sites.all);
  const owned = stack.move();
  return { ...sites, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Waits until every site has a session with each other one. */
async function connected(sites: readonly Site[]): Promise<void> {
  for (const site of sites) {
    await eventually(`${site.name} to be connected`, async () => {
      const { items } = await site.json("peers", "list");
      assert.equal(items.length, sites.length - 1);
      for (const { name, state, last_error: error } of items) {
        if (state === "catchup" || state === "streaming") continue;
        throw new Error(`${name} is ${state}, last error ${JSON.stringify(error)}`);
      }
      return true;
    }, { timeoutMs: RECOVERY_TIMEOUT_MS, intervalMs: 500 });
  }
}

/**
 * Runs faults while every site is written to, then asserts that nothing was lost or doubled. `progress` waits
 * until each site named has committed more.
 */
async function underLoad(
  sites: readonly Site[],
  faults: (progress: (...of: Site[]) => Promise<void>) => Promise<void>,
): Promise<void> {
  const writerOf = (site: Site, seed: number) =>
    new AppendWriter(site, seededIntegers(seed), { pauseMs: PAUSE_MS });
  const writers = new Map(sites.map((site, index) => [site, writerOf(site, index)]));
  const progress = async (...of: Site[]) => {
    const goals = of.map((site) => ({ site, goal: writers.get(site)!.transactions + TRANSACTIONS }));
    for (const { site, goal } of goals) {
      await eventually(`${site.name} to write on`, () => writers.get(site)!.transactions >= goal, {
        timeoutMs: RECOVERY_TIMEOUT_MS,
      });
    }
  };
  try {
    await faults(progress);
    for (const writer of writers.values()) await writer.stop();
    const committed = new Map(sites.map((site) => [site.name, writers.get(site)!.committedSequence]));
    await assertAppended(sites, committed, RECOVERY_TIMEOUT_MS);
  } catch (thrown) {
    for (const writer of writers.values()) await writer.stop().catch(() => {});
    const logs = await Promise.all(sites.map(async (site) => `${site.name}:\n${await site.log()}`));
    throw new Error(`${(thrown as Error).message}\n${logs.join("\n")}`, { cause: thrown });
  }
}

/** Waits until `site` knows that it cannot reach a peer. */
async function notices(site: Site, peer: Site): Promise<void> {
  await eventually(`${site.name} to notice that ${peer.name} is gone`, async () => {
    const { items } = await site.json("peers", "list");
    const { state } = items.find(({ name }: { name: string }) => name === peer.name);
    return state === "backoff" || state === "connecting";
  }, { timeoutMs: NOTICE_TIMEOUT_MS, intervalMs: 500 });
}

Deno.test("three sites have what each writes, and none reaches the PostgreSQL of another", async () => {
  await using sites = await startSites();
  await underLoad(sites.all, (progress) => progress(...sites.all));

  const { items: peers } = await sites.a.json("peers", "list");
  for (const { name, certificate_expires_at: expiry } of peers) {
    assert(Date.parse(expiry), `${name} has a certificate`);
  }
  const { server } = sites.a;
  assert.equal(await server.reaches(await server.address()), true);
  assert.equal(await server.reaches(await sites.b.server.address()), false);
  const { Config: config, HostConfig: rights } = await sites.a.inspectMmlite();
  assert.match(config.User, /^[1-9]/);
  assert.deepEqual([rights.ReadonlyRootfs, rights.CapDrop, rights.Privileged], [true, ["ALL"], false]);
});

Deno.test("a site that is cut off while all write catches up, also under another address", async () => {
  await using sites = await startSites();
  const { a, b, c } = sites;
  await underLoad(sites.all, async (progress) => {
    await c.cut();
    await Promise.all([notices(a, c), notices(b, c), notices(c, a)]);
    await progress(a, b, c);
    await c.heal();
    await connected(sites.all);
    await progress(a, b, c);

    const before = await b.wanAddress();
    await Promise.all([a.cut(), b.cut()]);
    await progress(a, b, c);
    // The first to come back is given the lowest address that is free.
    assert.notEqual(await b.heal(), before);
    await a.heal();
    await connected(sites.all);
    await progress(a, b, c);
  });
});

Deno.test("a site whose PostgreSQL or mmlite is killed goes on once it is started again", async () => {
  await using sites = await startSites();
  const { a, b, c } = sites;
  await underLoad(sites.all, async (progress) => {
    await a.killMmlite();
    await progress(a, b, c);
    await a.startMmlite();
    await b.server.kill();
    await progress(a, c);
    await b.server.start();
    await connected(sites.all);
    await progress(a, b, c);
    await Promise.all([c.killMmlite(), c.server.kill()]);
    await c.server.start();
    await c.startMmlite();
    await connected(sites.all);
    await progress(a, b, c);
  });
});

Deno.test("mmlite is replaced by another version in place, one site after the other", async () => {
  await using sites = await startSites();
  const { mmlite, nextMmlite, nextVersion } = await building!;
  assert.notEqual(mmlite, nextMmlite);
  await underLoad(sites.all, async (progress) => {
    for (const site of sites.all) {
      await site.replaceMmlite(nextMmlite);
      assert.equal((await site.json("version")).version, nextVersion);
      await connected(sites.all);
      await progress(...sites.all);
    }
  });
});
