/**
 * A node for tests of the control API alone: peers and tables in memory, no database and no links.
 */
import type { WholeConflict } from "../../src/api/conflict_schemas.ts";
import type { Health, NodeControl, NodeEvent, Precondition, WaitOutcome } from "../../src/api/control.ts";
import type { Job, JobInput } from "../../src/api/job_schemas.ts";
import type { Invite } from "../../src/api/invite_schemas.ts";
import type { TablePattern } from "../../src/api/pattern_schemas.ts";
import type { QuarantineEntry } from "../../src/api/quarantine_schemas.ts";
import type { RemovalReport } from "../../src/api/removal_schemas.ts";
import type { PeerStatus, TableStatus } from "../../src/api/schemas.ts";
import { MmliteError } from "../../src/errors.ts";
import type { TableName } from "../../src/table_name.ts";

const STARTED = "2026-11-22T10:00:00.000Z";

/** A {@link NodeControl} whose state a test can look at and change. */
export interface TestControl extends NodeControl {
  readonly peers: Map<string, PeerStatus>;
  readonly tables: TableStatus[];
  /** By their text. */
  readonly patterns: Map<string, TablePattern>;
  readonly invites: Invite[];
  /** The latest first. */
  readonly jobs: Job[];
  /** The newest first. */
  readonly conflicts: WholeConflict[];
  /** What {@link NodeControl.events} yields before it ends. */
  readonly happened: NodeEvent[];
  readonly quarantined: Map<string, QuarantineEntry>;
  /** Names given to `retryPeer`, in order. */
  readonly retried: string[];
  /** What is asked of `giveToken` and `waitFor`, in order. */
  readonly asked: unknown[];
  /** What `waitFor()` does. */
  wait: (signal: AbortSignal) => Promise<WaitOutcome>;
  /** What `health()` answers. */
  state: Health;
  /** What `status()` throws instead of answering, if anything. */
  failure: unknown;
}

/** A node with the peers and tables given. */
export function createTestControl(given: { peers?: PeerStatus[]; tables?: TableStatus[] } = {}): TestControl {
  const peers = new Map((given.peers ?? []).map((peer) => [peer.name, peer]));
  const find = (name: string): PeerStatus => {
    const peer = peers.get(name);
    if (peer === undefined) throw new MmliteError("not_found", `Cannot find peer "${name}": there is none`);
    return peer;
  };
  const change = (name: string, changes: Partial<PeerStatus>): PeerStatus => {
    const peer = { ...find(name), ...changes };
    peers.set(name, peer);
    return peer;
  };
  const findTable = ({ schema, name }: TableName): TableStatus => {
    const table = control.tables.find((one) => one.schema === schema && one.name === name);
    if (table !== undefined) return table;
    throw new MmliteError("not_found", `Cannot find table "${schema}.${name}": it is not replicated`);
  };
  const quarantined = (id: string): QuarantineEntry => {
    const entry = control.quarantined.get(id);
    if (entry !== undefined) return entry;
    throw new MmliteError("not_found", `Cannot find transaction "${id}" in quarantine: there is none`);
  };
  const control: TestControl = {
    quarantined: new Map(["1", "2"].map((id) => [id, testQuarantined(id)])),
    peers,
    tables: given.tables ?? [],
    patterns: new Map(),
    invites: [],
    jobs: [],
    conflicts: [testConflict("2"), testConflict("1")],
    happened: [],
    retried: [],
    asked: [],
    wait: () => Promise.resolve({ reached: true, waitedSeconds: 0.012 }),
    state: { ready: true, checks: [{ name: "postgres", ok: true, message: "" }] },
    failure: undefined,
    health: () => Promise.resolve(control.state),
    metrics: () => Promise.resolve("# TYPE mmlite_build_info gauge\nmmlite_build_info 1\n"),
    status: async () => {
      if (control.failure !== undefined) throw control.failure;
      return await Promise.resolve({ ...NODE_PAGE, peers: [...peers.values()], ready: control.state.ready });
    },
    listPeers: () => Promise.resolve([...peers.values()]),
    getPeer: async (name) => await Promise.resolve(find(name)),
    putPeer: async (name, { url = null }, { dryRun, precondition }) => {
      const current = await check(peers.get(name), precondition);
      const peer = current === null ? testPeer(name, url) : { ...current, url };
      if (!dryRun) peers.set(name, peer);
      return { created: current === null, peer };
    },
    removePeer: async (name, { force, dryRun, precondition }) => {
      await check(find(name), precondition);
      if (dryRun) return testRemoval(name, false);
      if (!force) change(name, { removing: true });
      else peers.delete(name);
      return force ? testRemoval(name, true) : "draining";
    },
    pausePeer: async (name) => await Promise.resolve(change(name, { state: "paused" })),
    resumePeer: async (name) => await Promise.resolve(change(name, { state: "connecting" })),
    renewPeer: async (name) => await Promise.resolve(change(name, { state: "connecting" })),
    retryPeer: async (name) => {
      control.retried.push(name);
      return await Promise.resolve(change(name, { state: "connecting" }));
    },
    skipPeer: async (name, lsn) => {
      const peer = find(name);
      if (peer.inbound.blocked_lsn === lsn) return await Promise.resolve(peer);
      throw new MmliteError(
        "conflict",
        `Cannot skip the transaction of "${name}" at ${lsn}: none is blocked`,
      );
    },
    listQuarantine: () => Promise.resolve({ items: [...control.quarantined.values()], next_cursor: null }),
    showQuarantined: async (id) => {
      const row = { number: 2, table: "public.users", kind: "update" as const };
      const items = [{ ...row, old: null, new: { id: "1", name: null }, unchanged: ["text"] }];
      return await Promise.resolve({ ...quarantined(id), rows: { items, next_cursor: null } });
    },
    retryQuarantined: async (id) => {
      const entry = quarantined(id);
      control.quarantined.delete(id);
      return await Promise.resolve(entry);
    },
    discardQuarantined: async (id) => {
      quarantined(id);
      await Promise.resolve(control.quarantined.delete(id));
    },
    giveToken: (options) => {
      control.asked.push(options);
      return Promise.resolve({ token: "mmpos1_x", positions: [{ node: "ams", lsn: "16/B374D848" }] });
    },
    waitFor: (token, { timeoutMs, signal }) => {
      control.asked.push({ token, timeoutMs });
      return control.wait(signal);
    },
    createInvite: async ({ name = null, urls = ["https://ams:7432"] }) => {
      const id = String(control.invites.length).padStart(16, "0");
      const times = { created_at: STARTED, expires_at: STARTED, used_at: null };
      control.invites.unshift({ id, name, state: "open", ...times, used_by: null });
      return await Promise.resolve({ id, token: `token-${id}`, name, expires_at: STARTED, urls });
    },
    listInvites: () => Promise.resolve(control.invites),
    deleteInvite: async (id) => {
      const at = control.invites.findIndex((invite) => invite.id === id);
      if (at < 0) throw new MmliteError("not_found", `Cannot withdraw invite "${id}": there is none`);
      await Promise.resolve(control.invites.splice(at, 1));
    },
    createJob: async (input) => {
      const job = testJob(String(control.jobs.length + 1), input);
      control.jobs.unshift(job);
      return await Promise.resolve(job);
    },
    listJobs: () => Promise.resolve(control.jobs.map(({ result: _, ...job }) => job)),
    getJob: async (id) => {
      const job = control.jobs.find((one) => one.id === id);
      if (job === undefined) throw new MmliteError("not_found", `Cannot find job "${id}": there is none`);
      return await Promise.resolve(job);
    },
    removeJob: async (id) => {
      const at = control.jobs.indexOf(await control.getJob(id));
      control.jobs.splice(at, 1);
    },
    listTables: () => Promise.resolve(control.tables),
    listPatterns: () => [...control.patterns.values()],
    putPattern: async (pattern, kind, { dryRun }) => {
      const created = control.patterns.get(pattern)?.kind !== kind;
      const set = { pattern, kind, from: "api" as const, active: true };
      if (!dryRun) control.patterns.set(pattern, set);
      return await Promise.resolve({
        created,
        change: { ...set, matches: [], published: [], withdrawn: [] },
      });
    },
    removePattern: async (pattern, { dryRun }) => {
      const known = control.patterns.get(pattern);
      if (known === undefined) {
        throw new MmliteError("not_found", `Cannot remove pattern ${pattern}: there is none`);
      }
      if (!dryRun) control.patterns.delete(pattern);
      return await Promise.resolve({ ...known, active: false, matches: [], published: [], withdrawn: [] });
    },
    getTable: async (table) => await Promise.resolve(findTable(table)),
    setTablePolicy: async (table, input, { dryRun, precondition }) => {
      const current = findTable(table);
      precondition?.(current);
      const { policy = "last_update_wins", types = {} } = input ?? {};
      const from = input === null ? "default" : "api";
      const changed: TableStatus = { ...current, policy, types: { ...types } as never, policy_from: from };
      if (!dryRun) control.tables[control.tables.indexOf(current)] = changed;
      return await Promise.resolve(changed);
    },
    clearTable: async (table, { dryRun }) => {
      const current = findTable(table);
      const cleared = { ...current, diverged: null };
      if (!dryRun) control.tables[control.tables.indexOf(current)] = cleared;
      return await Promise.resolve(cleared);
    },
    listConflicts: async ({ type, before, limit }) => {
      const found = control.conflicts.filter((one) => type === undefined || one.type === type)
        .filter(({ id }) => before === undefined || Number(id) < Number(before));
      const items = found.slice(0, limit).map(({ local, remote, ...conflict }) => {
        const [{ row: _here, ...here }, { row: _came, ...came }] = [local, remote];
        return { ...conflict, local: here, remote: came };
      });
      return await Promise.resolve({ items, next_cursor: found.length > limit ? items.at(-1)!.id : null });
    },
    getConflict: async (id) => {
      const conflict = control.conflicts.find((one) => one.id === id);
      if (conflict !== undefined) return await Promise.resolve(conflict);
      throw new MmliteError("not_found", `Cannot find conflict ${id}: there is none`);
    },
    events: async function* () {
      yield* await Promise.resolve(control.happened);
    },
  };
  return control;
}

async function check(
  current: PeerStatus | undefined,
  precondition?: Precondition<PeerStatus>,
): Promise<PeerStatus | null> {
  precondition?.(current ?? null);
  return await Promise.resolve(current ?? null);
}

/** What a removal leaves undelivered. */
export function testRemoval(peer: string, removed: boolean): RemovalReport {
  const at = "2026-11-22T10:00:00.123456Z";
  return {
    peer,
    removed,
    undelivered: {
      ...{ after_lsn: "0/1A", wal_bytes: "8192", complete: true, problem: null, transactions: 1, changes: 2 },
      tables: [{ table: "public.t", inserts: 2, updates: 0, deletes: 0, truncates: 0 }],
      ...{ first_committed_at: at, last_committed_at: at },
    },
    received: { applied_lsn: "0/2B", committed_at: at, others: [] },
    remedies: [],
  };
}

/** A peer that streams, with every field filled. */
export function testPeer(name: string, url: string | null): PeerStatus {
  const slot = { name: `mmlite_${name}`, confirmed_flush_lsn: "0/1A", restart_lsn: "0/10", active: true };
  return {
    name,
    url,
    state: "streaming",
    since: STARTED,
    awaits_dial: false,
    certificate_expires_at: null,
    removing: false,
    away_since: null,
    evicted_at: null,
    repair_due_since: null,
    policies_differ: false,
    sent_lsn: "0/1B",
    acked_lsn: "0/1A",
    lag_bytes: "1",
    lag_seconds: 0.001,
    clock_skew_seconds: 0.002,
    clock_skew_uncertainty_seconds: 0.0005,
    slot: { ...slot, retained_wal_bytes: "11", wal_status: "reserved", safe_wal_size: null },
    inbound: {
      state: "blocked",
      applied_lsn: "16/B374D848",
      applied_commit_timestamp: STARTED,
      lag_seconds: 0,
      transactions: 3,
      changes: 9,
      last_error: { kind: "schema_mismatch", message: "Cannot apply", hint: "Add the column", at: STARTED },
      blocked_lsn: "16/B374D900",
      awaited_rows: 2,
    },
    sent_transactions: 2,
    compression: "zstd",
    sent_message_bytes: "20480",
    sent_bytes: "4096",
    reconnects: 0,
    last_error: null,
  };
}

/** A transaction in quarantine. */
function testQuarantined(id: string): QuarantineEntry {
  return {
    id,
    origin: "fra",
    commit_lsn: "16/B374D800",
    end_lsn: "16/B374D848",
    commit_timestamp: STARTED,
    changes: 1,
    error: { kind: "apply_failed", message: "Cannot apply", hint: "Remove the cause", at: STARTED },
    quarantined_at: STARTED,
  };
}

/** A replicated table with a key. */
export function testTable(schema: string, name: string): TableStatus {
  return {
    ...{ schema, name, state: "replicated", hint: null, key_columns: ["id"], estimated_rows: 12 },
    ...{ policy: "last_update_wins", types: {}, policy_from: "default", diverged: null },
  };
}

/** A conflict of table `public.users` with every field filled. */
export function testConflict(id: string): WholeConflict {
  const version = {
    row: { id: 1, name: "here" },
    origin: "ams",
    commit_timestamp: "2026-11-22T10:00:00.000001Z",
  };
  return {
    id,
    noted_at: "2026-11-22T10:00:01.000001Z",
    table: "public.users",
    type: "update_origin_differs",
    resolution: "applied",
    change: "update",
    key: { id: 1 },
    local: version,
    remote: { ...version, row: { id: 1, name: "there" }, origin: "fra", lsn: "16/B374D848" },
  };
}

const NODE_PAGE = {
  node: {
    name: "ams",
    cluster: "test",
    incarnation: "5d2f7f0a-0000-4000-8000-000000000000",
    version: "1.2.3",
    started_at: STARTED,
    peer_address: "0.0.0.0:7432",
    api_address: "127.0.0.1:7433",
    advertised_url: null,
    insecure: true,
  },
  tls: null,
  postgres: {
    connected: true,
    version: "18.4",
    version_num: 180_004,
    system_identifier: "7234567890123456789",
    timeline: 1,
    database: "app",
    host: "/var/run/postgresql",
    wal_lsn: "0/1C",
    track_commit_timestamp: true,
    clock_offset_seconds: 0.0001,
    problem: null,
  },
  tables: { replicated: 1, insert_only: 0, diverged: 0 },
  conflicts: { since_start: { update_missing: 1 }, kept: 1 },
  quarantine: { transactions: 2 },
  problems: [],
};

/** A job that waits. */
function testJob(id: string, input: JobInput): Job {
  return {
    ...{
      id,
      type: input.type,
      state: "queued",
      input,
      created_at: STARTED,
      started_at: null,
      finished_at: null,
    },
    ...{ progress: null, rows: 0, bytes: 0, eta_seconds: null, error: null, result: null },
  };
}
