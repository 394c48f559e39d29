/** One expected frame over a channel (PROTOCOL 2). */
import { memoryPair, takeEnd } from "../../tests/support/channel_pair.ts";
import { rejectsWith } from "../../tests/support/peer_ports.ts";
import { toLsn } from "../lsn.ts";
import { expectFrame, readFrames } from "./frame_stream.ts";

Deno.test("an expected frame is waited for past heartbeats, and a refusal instead is its error (PROTOCOL 2)", async () => {
  await using pair = memoryPair();
  const [here, there] = [takeEnd(pair.dialling), takeEnd(pair.accepting)];
  await here.say({ kind: "heartbeat", sentAt: 1n });
  await here.say({ kind: "ack", endLsn: toLsn(1n) });
  await there.hear("ack");
  await there.say({ kind: "refusal", errorKind: "fenced", message: "Not you", hint: "Ask" });
  await rejectsWith(here.hear("welcome"), "fenced", /^Peer refused: Not you$/);
});

Deno.test("an expected frame that does not come is unreachable in time, or aborted by the signal", async () => {
  await using pair = memoryPair();
  const frames = readFrames(pair.dialling);
  await rejectsWith(
    expectFrame(frames, "welcome", { timeoutMs: 50 }),
    "unreachable",
    /no welcome within 50 ms/,
  );
  const stopped = expectFrame(frames, "welcome", { signal: AbortSignal.abort() });
  await rejectsWith(stopped, "aborted", /^Cannot shake hands: stopped while waiting for a welcome$/);
  await pair.accepting.end();
  await rejectsWith(expectFrame(frames, "welcome"), "protocol", /the stream ended before a welcome/);
});
