import assert from "node:assert/strict";
import { openControl } from "../pg/control.ts";
import { readServerTime } from "../pg/server.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { ServerClock } from "./server_clock.ts";

Deno.test("the server's clock is known within its bound", async () => {
  await using server = await startPostgres({ major: 18 });
  const control = openControl(await parsePostgresUrl(server.url("postgres"), {}), "test");
  try {
    const clock = new ServerClock({ control });
    for (let i = 0; i < 5; i++) await clock.measure();
    const query = control.query("look");
    const before = clock.read();
    const time = await readServerTime(query) + 946_684_800_000_000n;
    const after = clock.read();
    const bound = BigInt(Math.ceil(after.uncertaintyMs * 1000));
    assert(before.time - bound <= time && time <= after.time + bound, `${before.time} ${time} ${after.time}`);
    assert(after.uncertaintyMs < 100, String(after.uncertaintyMs));
    const [ahead] = [time - 946_684_800_000_000n + 60_000_000n];
    const left = clock.untilPassed(ahead);
    assert(left > 59_000 && left < 60_100, String(left));
    assert(clock.untilPassed(ahead - 120_000_000n) < 0);
  } finally {
    await control.close();
  }
});
