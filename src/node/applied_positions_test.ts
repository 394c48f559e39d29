import assert from "node:assert/strict";
import { within } from "../../tests/support/poll.ts";
import { toLsn } from "../lsn.ts";
import { AppliedPositions } from "./applied_positions.ts";

const lsn = (value: number) => toLsn(BigInt(value));
const at = (value: number, life = "one") => ({ life, lsn: lsn(value) });
const forever = () => new AbortController().signal;

/** Positions, and in which order those who wait for some were woken. */
function watched() {
  const positions = new AppliedPositions();
  const woken: string[] = [];
  const wait = (node: string, value: number, signal = forever()) =>
    positions.changed(node, lsn(value), signal).then(() => void woken.push(`${node} ${value}`));
  return { positions, woken, wait, turn: () => new Promise((resolve) => setTimeout(resolve)) };
}

Deno.test("a position only moves on, but for what the database says", () => {
  const positions = new AppliedPositions();
  positions.reached("ams", lsn(5));
  assert.equal(positions.of("ams"), undefined);
  positions.set("ams", at(3));
  positions.reached("ams", lsn(5));
  positions.reached("ams", lsn(4));
  assert.deepEqual(positions.of("ams"), at(5));
  positions.set("ams", at(2, "two"));
  assert.deepEqual(positions.of("ams"), at(2, "two"));
  positions.forgetAll();
  assert.equal(positions.of("ams"), undefined);
});

Deno.test("those whose position is reached are woken, in order, and nobody else", async () => {
  const { positions, woken, wait, turn } = watched();
  positions.set("ams", at(0));
  positions.set("fra", at(0));
  const waits = [["ams", 7], ["ams", 3], ["ams", 5], ["ams", 5], ["fra", 1]] as const;
  const all = waits.map(([node, value]) => wait(node, value));
  assert.equal(positions.waiting, 5);
  positions.reached("ams", lsn(2));
  await turn();
  assert.deepEqual(woken, []);
  positions.reached("ams", lsn(6));
  await turn();
  assert.deepEqual(woken, ["ams 3", "ams 5", "ams 5"]);
  assert.equal(positions.waiting, 2);
  positions.reached("ams", lsn(7));
  positions.reached("fra", lsn(9));
  await within("all of them", 1_000, Promise.all(all));
  assert.equal(positions.waiting, 0);
});

Deno.test("a node that is removed, or stands elsewhere, is looked at again by all who wait for it", async () => {
  const { positions, woken, wait, turn } = watched();
  const first = [wait("ams", 9), wait("fra", 9)];
  positions.set("ams", at(1, "two"));
  await turn();
  assert.deepEqual(woken, ["ams 9"]);
  positions.forget("fra");
  await within("both", 1_000, Promise.all(first));
  assert.equal(positions.waiting, 0);
  const again = wait("fra", 9);
  positions.set("fra", at(1));
  await within("again", 1_000, again);
});

Deno.test("who gives up leaves nothing behind", async () => {
  const { positions, wait } = watched();
  positions.set("ams", at(0));
  const stop = new AbortController();
  const waits = Array.from({ length: 100 }, (_, i) => wait("ams", 100 - i, stop.signal));
  const stays = wait("ams", 50);
  assert.equal(positions.waiting, 101);
  stop.abort();
  await within("those who gave up", 1_000, Promise.all(waits));
  assert.equal(positions.waiting, 1);
  await within("who comes too late", 1_000, wait("ams", 5, stop.signal));
  positions.reached("ams", lsn(50));
  await within("who stayed", 1_000, stays);
  assert.equal(positions.waiting, 0);
});
