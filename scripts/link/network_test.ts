import assert from "node:assert/strict";
import { eventually, within } from "../../tests/support/poll.ts";
import { networkProblem, openNetwork, type Site } from "./network.ts";

/** Runs a module of these lines in a site; what it prints. */
function start({ enter: [program, ...words] }: Site, code: string): Deno.ChildProcess {
  return new Deno.Command(program, {
    args: [...words, Deno.execPath(), "eval", "--quiet", code],
    stdin: "null",
    stdout: "piped",
  }).spawn();
}

async function output(child: Deno.ChildProcess): Promise<string> {
  return new TextDecoder().decode((await within("the program to end", 30_000, child.output())).stdout).trim();
}

const SERVER = `
  const listener = Deno.listen({ hostname: "0.0.0.0", port: 7000 });
  for await (const connection of listener) connection.readable.pipeTo(connection.writable).catch(() => {});`;

/** Round trips of single bytes, milliseconds, by the middle one of nine. */
const CLIENT = (host: string) => `
  let connection;
  while (!connection) {
    connection = await Deno.connect({ hostname: "${host}", port: 7000 }).catch(() => {});
    if (!connection) await new Promise((wake) => setTimeout(wake, 50));
  }
  const times = [];
  for (let i = 0; i < 9; i++) {
    const began = performance.now();
    await connection.write(Uint8Array.of(1));
    await connection.read(new Uint8Array(1));
    times.push(performance.now() - began);
  }
  console.log(times.sort((a, b) => a - b)[4]);`;

/** Whether a connection is taken within two seconds. */
const PROBE = (host: string) => `
  const late = new Promise((wake) => setTimeout(wake, 2_000, "silence"));
  const taken = Deno.connect({ hostname: "${host}", port: 7000 }).then(() => "connected");
  console.log(await Promise.race([taken, late]));
  Deno.exit();`;

Deno.test("sites reach each other over their links alone, with the delay that they have", async () => {
  if (await networkProblem() !== undefined) {
    return await assert.rejects(openNetwork(), /^Error: Cannot emulate a network: [a-z]/);
  }
  await using network = await openNetwork();
  const [near, middle, far] = [
    await network.addSite("near"),
    await network.addSite("mid"),
    await network.addSite("far"),
  ];
  const short = await network.join(near, middle, { roundTripMs: 2 });
  const long = await network.join(middle, far, { roundTripMs: 80, megabits: 10 });
  const servers = [start(near, SERVER), start(far, SERVER)];
  try {
    const [quick, slow] = await Promise.all([
      output(start(middle, CLIENT(short.addresses[0]))),
      output(start(middle, CLIENT(long.addresses[1]))),
    ]);
    assert(Number(quick) >= 2 && Number(quick) < 40, quick);
    assert(Number(slow) >= 80 && Number(slow) < 120, slow);
    short.carry(false);
    assert.equal(await output(start(middle, PROBE(short.addresses[0]))), "silence");
    short.carry(true);
    assert.equal(await output(start(middle, PROBE(short.addresses[0]))), "connected");
  } finally {
    for (const server of servers) server.kill();
    await Promise.all(servers.map((server) => server.output()));
  }
});

const OWNER = `
  const { openNetwork } = await import("${import.meta.resolve("./network.ts")}");
  const network = await openNetwork();
  const sites = [await network.addSite("one"), await network.addSite("two")];
  await network.join(...sites, { roundTripMs: 1 });
  const [program, ...words] = sites[0].enter;
  new Deno.Command(program, { args: [...words, "sleep", "600"] }).spawn();
  console.log(sites[0].name);
  setInterval(() => {}, 1_000);`;

Deno.test("a network goes, and what runs in it, when its owner is killed", async () => {
  if (await networkProblem() !== undefined) return;
  const owner = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", "--no-check", OWNER],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const site = await within("the network", 30_000, owner.stdout[Symbol.asyncIterator]().next());
  const name = new TextDecoder().decode(site.value).trim();
  owner.kill("SIGKILL");
  await owner.status;
  await eventually("the sites to be gone", async () => {
    const { stdout } = await new Deno.Command("ip", { args: ["netns", "list"] }).output();
    return !new TextDecoder().decode(stdout).includes(name.replace("-one", ""));
  });
});
