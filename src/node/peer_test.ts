import assert from "node:assert/strict";
import { batchOf } from "../../tests/support/message_batch.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { MmliteError } from "../errors.ts";
import type { SourceBatch } from "../pgoutput/source.ts";
import { toLsn } from "../lsn.ts";
import { InboundProgress, OutboundProgress } from "./peer.ts";
import { PeerClock } from "./peer_clock.ts";

/** Now, less `seconds`, as PostgreSQL's timestamp. */
function ago(seconds: number): bigint {
  return BigInt(Math.round(Date.now() - seconds * 1000) - Date.UTC(2000, 0, 1)) * 1000n;
}

/** Whole transactions that end at these positions. */
function batch(...commits: { endLsn: bigint; secondsAgo: number }[]): SourceBatch {
  const messages = commits.map(({ endLsn, secondsAgo }) =>
    encodeMessage({
      kind: "commit",
      commitLsn: toLsn(endLsn - 1n),
      endLsn: toLsn(endLsn),
      commitTimestamp: ago(secondsAgo),
    })
  );
  const end = commits.at(-1);
  return {
    messages: batchOf(messages),
    endLsn: end ? toLsn(end.endLsn) : null,
    walEnd: toLsn(end?.endLsn ?? 0n),
  };
}

function startProgress(resumeLsn: bigint, walLsn: bigint) {
  const reported: string[] = [];
  const bytes: number[] = [];
  const progress = new OutboundProgress({
    sent: (count) => void bytes.push(count),
    wrote: (count) => void bytes.push(-count),
    reconnected: () => {},
  }, new PeerClock("fra"));
  progress.report = {
    entered: (state) => void reported.push(state),
    progressed: () => void reported.push("progressed"),
  };
  progress.started({ resumeLsn: toLsn(resumeLsn), walLsn: toLsn(walLsn), compression: null });
  return { progress, reported, bytes };
}

/** Whether a lag is `seconds`, or a little more for the time that the test takes. */
function isAbout(lag: number | null, seconds: number): void {
  assert(lag !== null && lag >= seconds - 0.1 && lag < seconds + 5, `${lag} is not about ${seconds}`);
}

Deno.test("a session that begins behind the WAL's end catches up first, and streams from there on", () => {
  const { progress, reported } = startProgress(10n, 30n);
  progress.sent(batch({ endLsn: 20n, secondsAgo: 0 }));
  assert.deepEqual(reported, ["catchup"]);
  progress.sent({ messages: batchOf([]), endLsn: null, walEnd: toLsn(30n) });
  progress.sent(batch({ endLsn: 40n, secondsAgo: 0 }));
  assert.deepEqual(reported, ["catchup", "streaming"]);
});

Deno.test("a session that begins at the WAL's end streams at once", () => {
  assert.deepEqual(startProgress(30n, 30n).reported, ["streaming"]);
});

Deno.test("only an ack beyond where the session began is progress", () => {
  const { progress, reported } = startProgress(30n, 30n);
  progress.acked(toLsn(30n));
  assert.deepEqual(reported, ["streaming"]);
  progress.acked(toLsn(31n));
  assert.deepEqual(reported, ["streaming", "progressed"]);
  assert.equal(progress.ackedLsn, 31n);
});

Deno.test("a session that begins further than the one before is progress, though nothing was acked", () => {
  const { progress, reported } = startProgress(30n, 30n);
  const again = (resumeLsn: bigint) =>
    progress.started({ resumeLsn: toLsn(resumeLsn), walLsn: toLsn(30n), compression: null });
  again(30n);
  assert.deepEqual(reported, ["streaming", "streaming"]);
  again(31n);
  assert.deepEqual(reported.slice(2), ["progressed", "streaming"]);
});

Deno.test("sent transactions and bytes are counted across sessions", () => {
  const { progress, bytes } = startProgress(10n, 10n);
  progress.sent(batch({ endLsn: 20n, secondsAgo: 0 }, { endLsn: 30n, secondsAgo: 0 }));
  assert.equal(progress.sentLsn, 30n);
  progress.wrote(100);
  progress.started({ resumeLsn: toLsn(20n), walLsn: toLsn(30n), compression: "zstd" });
  assert.equal(progress.sentLsn, 20n);
  progress.sent(batch({ endLsn: 30n, secondsAgo: 0 }));
  progress.wrote(50);
  const { sentTransactions, sentMessageBytes, sentBytes, compression } = progress;
  assert.deepEqual([sentTransactions, sentMessageBytes, sentBytes, compression], [3, 78, 150, "zstd"]);
  assert.deepEqual(bytes, [52, -100, 26, -50]);
});

Deno.test("outbound lag is the age of the oldest transaction that is not acked", () => {
  const { progress } = startProgress(10n, 10n);
  assert.equal(progress.lagSeconds, 0);
  progress.sent(batch({ endLsn: 20n, secondsAgo: 60 }, { endLsn: 30n, secondsAgo: 30 }));
  isAbout(progress.lagSeconds, 60);
  progress.acked(toLsn(19n));
  isAbout(progress.lagSeconds, 60);
  progress.acked(toLsn(30n));
  assert.equal(progress.lagSeconds, 0);
});

Deno.test("outbound lag counts what was sent at once with a transaction that is acked", () => {
  const { progress } = startProgress(10n, 10n);
  const burst = [20n, 30n, 40n].map((endLsn) => ({ endLsn, secondsAgo: 60 }));
  progress.sent(batch(...burst));
  progress.acked(toLsn(20n));
  isAbout(progress.lagSeconds, 60);
  progress.acked(toLsn(40n));
  assert.equal(progress.lagSeconds, 0);
});

Deno.test("outbound lag begins anew with each session", () => {
  const { progress } = startProgress(10n, 10n);
  progress.sent(batch({ endLsn: 20n, secondsAgo: 60 }));
  progress.started({ resumeLsn: toLsn(10n), walLsn: toLsn(20n), compression: null });
  assert.equal(progress.lagSeconds, 0);
});

Deno.test("a commit in the future, by another clock, is no negative lag", () => {
  const { progress } = startProgress(10n, 10n);
  progress.sent(batch({ endLsn: 20n, secondsAgo: -60 }));
  assert.equal(progress.lagSeconds, 0);
});

Deno.test("inbound lag is the last transaction's while one streams, and unknown while none can come", () => {
  const progress = new InboundProgress();
  assert.equal(progress.lagSeconds, null);
  progress.enter({ name: "streaming" });
  assert.equal(progress.lagSeconds, 0);
  progress.applied(ago(30), 3);
  isAbout(progress.lagSeconds, 30);
  assert.deepEqual([progress.transactions, progress.changes], [1, 3]);
  progress.enter({ name: "disconnected" });
  assert.equal(progress.lagSeconds, null);
});

Deno.test("the last error of what comes in stays after it has healed", () => {
  const progress = new InboundProgress();
  const error = new MmliteError("apply_failed", "Cannot apply");
  progress.enter({ name: "failed", error });
  progress.enter({ name: "streaming" });
  assert.equal(progress.lastError?.error, error);
});
