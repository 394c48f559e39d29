/**
 * A node that speaks TLS, and what attackers send to its peer port: bytes that would apply a row if they were let in,
 * the answer in words, and the proof that nothing came of it.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type tls from "node:tls";
import { CONTENT_TYPE, FRAME_PATHS } from "../../src/http/session_options.ts";
import { toLsn } from "../../src/lsn.ts";
import { encodeFrame } from "../../src/wire/codec.ts";
import { type Hello, PROTOCOL_VERSION } from "../../src/wire/frame.ts";
import { FrameDecoder } from "../../src/wire/frame_decoder.ts";
import { TestAuthority, type TestCertificate } from "./certificates.ts";
import { dataFrame } from "./message_batch.ts";
import { type Mmlite, startMmlite } from "./mmlite.ts";
import { encodeMessage } from "./pgoutput_encode.ts";
import { eventually } from "./poll.ts";
import { type PostgresServer, startPostgres } from "./postgres.ts";
import { connectRaw, dataFrames, opening, type RawConnection, request, TYPE } from "./raw_http2.ts";
import { makeScratch, removeScratch } from "./scratch.ts";

/** The cluster, whose name strangers must not read. */
export const CLUSTER = "kestrel";
/** The node under attack. */
export const NODE = "nodewell";
/** The member whose part we play. */
export const MEMBER = "fra";
const INCARNATION = crypto.randomUUID();

/** The node under attack, and the CA of its cluster. */
export interface HostileBed extends AsyncDisposable {
  readonly node: Mmlite;
  readonly server: PostgresServer;
  readonly authority: TestAuthority;
  readonly port: number;
}

/** Starts the node, which the member {@link MEMBER} has pushed one row to: the attacks below would push theirs. */
export async function openHostileBed(): Promise<HostileBed> {
  await using stack = new AsyncDisposableStack();
  const directory = await makeScratch("hostile");
  stack.defer(() => removeScratch(directory));
  const authority = await TestAuthority.create();
  const { certificate, key } = await authority.issueNode(NODE, { cluster: CLUSTER });
  await writeFile(join(directory, "ca.pem"), authority.certificate);
  await writeFile(join(directory, "node.pem"), certificate);
  await writeFile(join(directory, "node-key.pem"), key, { mode: 0o600 });
  const server = stack.use(await startPostgres({ major: 18 }));
  await server.createDatabase("app");
  await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY)");
  const node = stack.use(
    await startMmlite({
      name: NODE,
      postgres: server.url("app"),
      tls: directory,
      extraArgs: ["--cluster", CLUSTER, "--log-level", "debug"],
    }),
  );
  const port = Number(new URL(node.peerUrl).port);
  const bed = { node, server, authority, port };
  const member = shown(await authority.issueNode(MEMBER, { cluster: CLUSTER }));
  await attack(bed, {
    name: "the member",
    tls: member,
    bytes: pushOf(1),
    outcome: /^welcome, ack$/,
  });
  const owned = stack.move();
  return { ...bed, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The first frame of the member, or of somebody who takes its part. */
export function helloOf(changes: Partial<Hello["identity"]> = {}): Hello {
  return {
    kind: "hello",
    protocol: PROTOCOL_VERSION,
    identity: {
      cluster: CLUSTER,
      node: MEMBER,
      incarnation: INCARNATION,
      systemIdentifier: "1",
      timeline: 1,
      serverVersion: 180000,
      program: "0",
      ...changes,
    },
    receiver: NODE,
    url: null,
    slotLsn: toLsn(1n),
    ackedLsn: null,
    walLsn: toLsn(1000n),
    compression: [],
    policies: null,
  };
}

/** A push of one row, from the request to the commit: what applies a row if anything does. */
export function pushOf(id: number, hello = helloOf(), headers: Record<string, string> = {}): Buffer {
  const columns = [{ name: "id", key: true, typeOid: 23, typeModifier: -1 }];
  const commitLsn = toLsn(BigInt(100 * id));
  const endLsn = toLsn(BigInt(100 * id + 8));
  const messages = [
    encodeMessage({ kind: "begin", commitLsn, commitTimestamp: 0n, xid: id }),
    encodeMessage({
      kind: "relation",
      relationId: 1,
      schema: "public",
      name: "t",
      replicaIdentity: "default",
      columns,
    }),
    encodeMessage({
      kind: "insert",
      relationId: 1,
      newTuple: [{ kind: "text", bytes: Buffer.from(String(id)) }],
    }),
    encodeMessage({ kind: "commit", commitLsn, endLsn, commitTimestamp: 0n }),
  ];
  const frames = Buffer.concat([encodeFrame(hello), encodeFrame(dataFrame(...messages))]);
  return Buffer.concat([
    opening(),
    request(1, { path: FRAME_PATHS.push, headers: { "content-type": CONTENT_TYPE, ...headers } }),
    dataFrames(1, frames),
  ]);
}

/** What came back, in words. */
function outcomeOf(connection: RawConnection): string {
  const text = connection.received().toString("latin1");
  if (text.startsWith("HTTP/1.1")) return `HTTP/1.1 400: ${text.split("\r\n\r\n")[1].trim()}`;
  const words: string[] = [];
  const decoder = new FrameDecoder();
  for (const { type, payload } of connection.frames()) {
    if (type === TYPE.goAway) {
      words.push(`GOAWAY ${payload.readUInt32BE(4)} ${payload.toString("latin1", 8)}`.trim());
    }
    if (type === TYPE.reset) words.push(`RST_STREAM ${payload.readUInt32BE(0)}`);
    if (type === TYPE.data) words.push(...spoken(payload, decoder));
  }
  const end = connection.ended();
  if (end !== undefined && words.length === 0) words.push(end);
  return words.join(", ");
}

/** A sentence, or frames of ours but for heartbeats; frames begin with a length, and none is so long. */
function spoken(payload: Buffer, decoder: FrameDecoder): string[] {
  if (payload[0] >= 0x20) return [payload.toString("latin1").trim()];
  return decoder.push(payload)
    .filter(({ kind }) => kind !== "heartbeat")
    .map((frame) => frame.kind === "refusal" ? `refusal ${frame.errorKind}: ${frame.message}` : frame.kind);
}

/** One attack and its outcome. */
export interface Attack {
  readonly name: string;
  /** TLS as shown; cleartext if there is none. */
  readonly tls?: tls.ConnectionOptions;
  readonly bytes: Uint8Array | ((connection: RawConnection) => Promise<void>);
  readonly outcome: RegExp;
  /** How long it may take, milliseconds. */
  readonly withinMs?: number;
  /** The attacker is a member, whom this node may tell its name. */
  readonly isMember?: true;
}

/** Sends what the attack sends, and waits for the outcome in its table. */
export async function attack(
  { port }: Pick<HostileBed, "port">,
  { tls, bytes, outcome, withinMs = 5000 }: Attack,
): Promise<RawConnection> {
  const connection = await connectRaw(port, tls);
  if (typeof bytes === "function") await bytes(connection);
  else connection.socket.write(bytes);
  await eventually("the outcome", () => {
    assert.match(outcomeOf(connection), outcome);
    return true;
  }, { timeoutMs: withinMs, intervalMs: 10 });
  return connection;
}

/** Fails if a row of an attacker is there, a peer that nobody added, or a byte that says which node this is. */
export async function assertNothing(
  bed: HostileBed,
  attack: Attack,
  connection: RawConnection,
): Promise<void> {
  const rows = await bed.server.sql("app", "SELECT id FROM t ORDER BY id");
  assert.deepEqual(rows.map(({ id }) => id), [1]);
  const { json } = await bed.node.api("GET", "/v1/peers");
  assert.deepEqual(json.items.map(({ name }: { name: string }) => name), [MEMBER]);
  if (attack.isMember) return;
  const [{ incarnation }] = await bed.server.sql("app", "SELECT incarnation FROM mmlite.node");
  const text = connection.received().toString("latin1");
  for (const secret of [NODE, CLUSTER, incarnation]) {
    assert.ok(!text.includes(secret), `${attack.name}: ${text}`);
  }
}

/** Shows a certificate. */
export function shown({ certificate, key }: TestCertificate): tls.ConnectionOptions {
  return { cert: certificate, key };
}

/** Runs attacks one after the other, each as a step; nothing may come of any. */
export async function attackAll(
  t: Deno.TestContext,
  bed: HostileBed,
  attacks: readonly Attack[],
): Promise<void> {
  for (const one of attacks) {
    await t.step(one.name, async () => {
      const connection = await attack(bed, one);
      await assertNothing(bed, one, connection);
      connection.socket.destroy();
    });
  }
}

/** Fails unless the member is still served; the row that it pushes is there already. */
export async function assertServes(bed: HostileBed): Promise<void> {
  const tls = shown(await bed.authority.issueNode(MEMBER, { cluster: CLUSTER }));
  const { socket } = await attack(bed, {
    name: "the member",
    tls,
    bytes: pushOf(1),
    outcome: /^welcome/,
  });
  socket.destroy();
}
