import assert from "node:assert/strict";
import { parse } from "yaml";
import { createMetrics, type PeerGauges } from "./metrics.ts";

const GAUGES: PeerGauges = {
  state: "streaming",
  lagBytes: 4096,
  outboundLagSeconds: 0.25,
  inboundLagSeconds: 1.5,
  slotRetainedWalBytes: 16_777_216,
  slotSafeWalSizeBytes: 1e9,
  clockSkewSeconds: -0.002,
  awaitedRows: 2,
  awaySeconds: 0,
  isEvicted: false,
  isRepairDue: false,
};

/** Series of an exposition (version 0.0.4) by name with labels; fails on any line that does not fit the format. */
function parseExposition(text: string): Map<string, number> {
  const typed = new Set<string>();
  const series = new Map<string, number>();
  for (const line of text.split("\n")) {
    const type = /^# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram|summary)$/.exec(line);
    if (type !== null) typed.add(type[1]);
    if (line === "" || line.startsWith("#")) continue;
    const sample = /^([a-z_:][a-z0-9_:]*)(\{(?:[a-z_]+="[^"]*",?)+\})? (\S+)$/.exec(line);
    assert.ok(sample, `not a sample: ${line}`);
    const [, name, labels = "", value] = sample;
    assert.ok(typed.has(name.replace(/_(bucket|sum|count)$/, "")) || typed.has(name), `no TYPE for ${name}`);
    assert.ok(!series.has(name + labels), `twice: ${name}${labels}`);
    series.set(name + labels, value === "+Inf" ? Infinity : Number(value));
  }
  return series;
}

Deno.test("metrics name every series as the interface does", async () => {
  const metrics = createMetrics("1.2.3");
  metrics.setPeer("fra", GAUGES);
  metrics.countDecoded("local", 3);
  metrics.countDecoded("filtered");
  metrics.countSentMessageBytes("fra", 2048);
  metrics.countSentBytes("fra", 512);
  metrics.countReconnect("fra");
  metrics.setCertificateExpiry({
    expiresAt: new Date(1_900_000_000_000),
    authorityExpiresAt: new Date(2e12),
  });
  metrics.observeApplied("fra", { transactions: 3, seconds: 0.003 });
  metrics.countChanges("fra", "insert", 2);
  metrics.countChanges("fra", "delete", 1);
  metrics.countCopied("public.t", 7);
  metrics.countConflict("update_missing", "inserted");
  const series = parseExposition(await metrics.render());
  const expected: Record<string, number> = {
    'mmlite_build_info{version="1.2.3"}': 1,
    'mmlite_peer_state{peer="fra",state="streaming"}': 1,
    'mmlite_peer_state{peer="fra",state="blocked"}': 0,
    'mmlite_replication_lag_seconds{peer="fra",direction="outbound"}': 0.25,
    'mmlite_replication_lag_seconds{peer="fra",direction="inbound"}': 1.5,
    'mmlite_replication_lag_bytes{peer="fra"}': 4096,
    'mmlite_slot_retained_wal_bytes{peer="fra"}': 16_777_216,
    'mmlite_slot_safe_wal_size_bytes{peer="fra"}': 1e9,
    'mmlite_clock_skew_seconds{peer="fra"}': -0.002,
    'mmlite_awaited_rows{peer="fra"}': 2,
    'mmlite_decoded_transactions_total{kind="local"}': 3,
    'mmlite_decoded_transactions_total{kind="filtered"}': 1,
    'mmlite_sent_message_bytes_total{peer="fra"}': 2048,
    'mmlite_sent_bytes_total{peer="fra"}': 512,
    'mmlite_reconnects_total{peer="fra"}': 1,
    'mmlite_applied_transactions_total{origin="fra"}': 3,
    'mmlite_applied_changes_total{origin="fra",kind="insert"}': 2,
    'mmlite_applied_changes_total{origin="fra",kind="delete"}': 1,
    'mmlite_conflicts_total{type="update_missing",resolution="inserted"}': 1,
    'mmlite_copy_rows_total{table="public.t"}': 7,
    'mmlite_apply_duration_seconds_bucket{le="0.005"}': 1,
    "mmlite_apply_duration_seconds_count": 1,
    'mmlite_certificate_expiry_timestamp_seconds{certificate="node"}': 1_900_000_000,
    'mmlite_certificate_expiry_timestamp_seconds{certificate="ca"}': 2_000_000_000,
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(series.get(name), value, name);
});

Deno.test("the alerts and the page about operations name metrics that there are, and the page all of them", async () => {
  const text = await createMetrics("1").render();
  const known = new Set([...text.matchAll(/^# TYPE (mmlite_\w+)/gm)].map(([, name]) => name));
  const namedIn = (page: string) =>
    [...new Set([...page.matchAll(/mmlite_[a-z_]+[a-z]/g)].map(([name]) => name))]
      // A publication.
      .filter((name) => name !== "mmlite_inserts").sort();
  const page = await Deno.readTextFile(new URL("../docs/OPERATIONS.md", import.meta.url));
  assert.deepEqual(namedIn(page), [...known].sort());
  const alerts = await Deno.readTextFile(new URL("../contrib/alerts.yaml", import.meta.url));
  const rules = parse(alerts).groups[0].rules as { alert: string; expr: string }[];
  for (const name of namedIn(alerts)) assert.ok(known.has(name), name);
  for (const { alert } of rules) assert.ok(page.includes(`\`…${alert.replace(/^Mmlite/, "")}\``), alert);
});

Deno.test("the process's own metrics are there", async () => {
  const series = parseExposition(await createMetrics("1").render());
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"]) {
    assert.ok(series.get(name)! > 0, name);
  }
});

Deno.test("an unknown gauge has no series", async () => {
  const metrics = createMetrics("1");
  metrics.setPeer("fra", GAUGES);
  metrics.setPeer("fra", { ...GAUGES, state: "backoff", lagBytes: null });
  const series = parseExposition(await metrics.render());
  assert.equal(series.has('mmlite_replication_lag_bytes{peer="fra"}'), false);
  assert.equal(series.get('mmlite_peer_state{peer="fra",state="streaming"}'), 0);
  assert.equal(series.get('mmlite_peer_state{peer="fra",state="backoff"}'), 1);
});

Deno.test("a removed peer leaves no series, and the others stay", async () => {
  const metrics = createMetrics("1");
  for (const peer of ["fra", "nyc"]) {
    metrics.setPeer(peer, GAUGES);
    metrics.countSentMessageBytes(peer, 1);
    metrics.countSentBytes(peer, 1);
    metrics.countReconnect(peer);
  }
  metrics.removePeer("fra");
  const text = await metrics.render();
  assert.equal(text.includes('peer="fra"'), false);
  assert.equal(text.split('peer="nyc"').length > 10, true);
});

Deno.test("two nodes in one process count apart", async () => {
  const [one, other] = [createMetrics("1"), createMetrics("1")];
  one.countSentBytes("fra", 7);
  assert.equal((await other.render()).includes(`peer="fra"`), false);
});
