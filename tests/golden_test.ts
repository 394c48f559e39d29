/**
 * What real servers of each major release sent (`deno task capture`), against the decoder and against what each
 * step of `scripts/capture_scenario.ts` must have caused.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { CAPTURE_STEPS } from "../scripts/capture_scenario.ts";
import { MmliteError } from "../src/errors.ts";
import { formatLsn } from "../src/lsn.ts";
import { decodeMessage } from "../src/pgoutput/decode.ts";
import type { ColumnValue, Message, Relation, Tuple } from "../src/pgoutput/message.ts";
import { type Golden, goldenForm, readGolden } from "./support/golden.ts";
import { encodeMessage } from "./support/pgoutput_encode.ts";
import { POSTGRES_MAJORS } from "./support/postgres_packages.ts";

const PLAIN = "R public.plain default id* note amount";
const PAIR = "R public.pair default a* b* note";
const WHOLE = "R public.whole full id* note*";
const TYPED = [
  "Y public.mood",
  "Y pg_catalog.int4",
  "Y public.spot",
  "Y public._mood",
  "R public.typed default id* mood size spot moods",
];
const X = "x".repeat(2100);

/** What a step must have caused, one line per message; releases differ. */
const EXPECTED: Record<string, (major: number) => string[]> = {
  "insert": () => [
    "B",
    PLAIN,
    "I plain 1|eins 'ß' \u{1f600}|1.50",
    "I plain 2|null|null",
    "I plain 3||-0.01",
    "C",
  ],
  "update": () => ["B", PLAIN, "U plain 1|uno|1.50", "C"],
  "update of the key": () => ["B", PLAIN, "U plain key 1|null|null to 10|uno|1.50", "C"],
  "delete": () => ["B", PLAIN, "D plain key 10|null|null", "C"],
  "composite key": () => [
    ...["B", PAIR, "I pair 1|x|n", "C"],
    ...["B", "U pair 1|x|m", "C"],
    ...["B", "U pair key 1|x|null to 2|x|m", "C"],
    ...["B", "D pair key 2|x|null", "C"],
  ],
  "identity full": () => [
    ...["B", WHOLE, "I whole 1|null", "C"],
    ...["B", "U whole row 1|null to 1|n", "C"],
    ...["B", "D whole row 1|n", "C"],
  ],
  "identity index": () => [
    ...["B", "R public.coded index id code* note", "I coded 1|a|n", "C"],
    ...["B", "U coded 2|a|n", "C"],
    ...["B", "U coded key null|a|null to 2|b|n", "C"],
    ...["B", "D coded key null|b|null", "C"],
  ],
  "identity nothing": () => ["B", "R public.journal nothing note", "I journal n", "C"],
  "names": () => ["B", 'R Straße.Haus "1" default Größe*', 'I Haus "1" 1', "C"],
  "unchanged value": () => [
    ...["B", "R public.large default id* note body", `I large 1|n|${X}`, "C"],
    ...["B", "U large 1|m|unchanged", "C"],
  ],
  "unchanged value, identity full": () => [
    ...["B", "R public.large_whole full id* note* body*", `I large_whole 1|n|${X}`, "C"],
    ...["B", `U large_whole row 1|n|${X} to 1|m|unchanged`, "C"],
  ],
  "types of users": () => ["B", ...TYPED, 'I typed 1|glad|7|(1,"a,b")|{sad,NULL}', "C"],
  "savepoints": () => ["B", WHOLE, "I whole 1|kept", "I whole 3|kept", "C"],
  "relation changed in a transaction": () => [
    "B",
    "R public.journal nothing note",
    "I journal before",
    "R public.journal nothing note more",
    "I journal after|5",
    "C",
  ],
  "truncate": (major) =>
    major < 11 ? ["B", "C", "B", "C"] : [
      ...["B", WHOLE, "T whole", "C"],
      ...["B", PLAIN, PAIR, "T plain pair cascade restart", "C"],
    ],
  "nothing published": (major) => major <= 14 ? ["B", "C"] : [],
  "rolled back": () => [],
  "partition": () => ["B", "R public.measured_low default id* note", "I measured_low 1|n", "C"],
  "partition through its root": () => [
    "B",
    "R public.measured default id note",
    "R public.measured_low default id* note",
    "I measured 2|n",
    "C",
  ],
  "generated column": () => ["B", "R public.doubled default id*", "I doubled 4", "C"],
  "foreign transaction": () => ["B", "O mmlite_fra 1/AB", WHOLE, "I whole 1|foreign", "C"],
  "foreign transaction, origin none": () => ["B", WHOLE, "I whole 3|local", "C"],
  "origin made by the transaction that has it": (major) => [
    "B",
    // 14 says nothing, so that the transaction looks local: origins must be made beforehand.
    ...(major <= 13 ? ["unnamed origin"] : major === 14 ? [] : ["O mmlite_new 0/0"]),
    WHOLE,
    "I whole 1|foreign",
    "C",
  ],
  "logical messages": () => [
    "M outside mmlite 00ff",
    "B",
    WHOLE,
    "I whole 1|n",
    `M inside mmlite ${Buffer.from("in a transaction").toString("hex")}`,
    "C",
  ],
  "logical messages not asked for": (major) => major <= 14 ? ["B", "C"] : [],
  "binary values": () => [
    "B",
    ...TYPED,
    "I typed b00000002|b736164|b00000007|null|null",
    "C",
  ],
  "large transaction rolled back": (major) => [
    // Bug #19616 of 18.0 to 18.6.
    ...(major === 18 ? ["stream abort"] : []),
    "B",
    WHOLE,
    "I whole 1|kept",
    "C",
  ],
};

function summaries(messages: readonly Message[]): string[] {
  const relations = new Map<number, Relation>();
  return messages.map((message) => {
    if (message.kind === "relation") relations.set(message.relationId, message);
    return summary(message, (id) => relations.get(id)?.name ?? "unknown");
  });
}

function summary(message: Message, nameOf: (relationId: number) => string): string {
  switch (message.kind) {
    case "begin":
      return "B";
    case "commit":
      return "C";
    case "origin":
      return `O ${message.name} ${formatLsn(message.originLsn)}`;
    case "relation": {
      const columns = message.columns.map(({ name, key }) => key ? `${name}*` : name);
      return ["R", `${message.schema}.${message.name}`, message.replicaIdentity, ...columns].join(" ");
    }
    case "type":
      return `Y ${message.schema}.${message.name}`;
    case "insert":
      return `I ${nameOf(message.relationId)} ${row(message.newTuple)}`;
    case "update": {
      const old = oldRow(message);
      return `U ${nameOf(message.relationId)} ${old && `${old} to `}${row(message.newTuple)}`;
    }
    case "delete":
      return `D ${nameOf(message.relationId)} ${oldRow(message)}`;
    case "truncate": {
      const options = [message.cascade && "cascade", message.restartIdentity && "restart"];
      return ["T", ...message.relationIds.map(nameOf), ...options.filter(Boolean)].join(" ");
    }
    case "message": {
      const place = message.transactional ? "inside" : "outside";
      return `M ${place} ${message.prefix} ${Buffer.from(message.content).toString("hex")}`;
    }
    case "unnamed_origin":
      return "unnamed origin";
    case "stream_abort":
      return "stream abort";
  }
}

function oldRow({ oldKey, oldTuple }: { oldKey?: Tuple; oldTuple?: Tuple }): string {
  if (oldKey !== undefined) return `key ${row(oldKey)}`;
  return oldTuple === undefined ? "" : `row ${row(oldTuple)}`;
}

function row(tuple: Tuple): string {
  return tuple.map(valueText).join("|");
}

function valueText(value: ColumnValue): string {
  if (value.kind === "null" || value.kind === "unchanged") return value.kind;
  if (value.kind === "binary") return "b" + Buffer.from(value.bytes).toString("hex");
  return Buffer.from(value.bytes).toString();
}

function payloads(golden: Golden, step?: string): Buffer[] {
  const chosen = golden.messages.filter((message) => step === undefined || message.step === step);
  return chosen.map(({ hex }) => Buffer.from(hex, "hex"));
}

/** The first message of each type. */
function samples(golden: Golden): Buffer[] {
  const first = new Map<number, Buffer>();
  for (const bytes of payloads(golden)) {
    if (bytes.length > 0 && !first.has(bytes[0])) first.set(bytes[0], bytes);
  }
  return [...first.values()];
}

const CAPTURED = await Promise.all(
  POSTGRES_MAJORS.map(async (major) => ({ major, golden: await readGolden(major) })),
);

for (const { title, since = 10 } of CAPTURE_STEPS) {
  Deno.test(`every release since ${since} sends what the step must cause: ${title}`, () => {
    for (const { major, golden } of CAPTURED.filter(({ major }) => major >= since)) {
      const sent = summaries(payloads(golden, title).map(decodeMessage));
      assert.deepEqual({ major, sent }, { major, sent: EXPECTED[title](major) });
    }
  });
}

for (const { major, golden } of CAPTURED) {
  const server = `PostgreSQL ${golden.serverVersion}`;

  Deno.test(`${server}: every message decodes as recorded`, () => {
    assert.equal(parseInt(golden.serverVersion), major);
    for (const { step, hex, message } of golden.messages) {
      assert.ok(Object.hasOwn(EXPECTED, step), `no such step: ${step}`);
      assert.deepEqual(goldenForm(decodeMessage(Buffer.from(hex, "hex"))), message);
    }
  });

  Deno.test(`${server}: no byte of a message is lost in decoding`, () => {
    for (const bytes of payloads(golden)) {
      const message = decodeMessage(bytes);
      if (message.kind === "stream_abort") assert.equal(bytes.length, 9);
      else assert.equal(Buffer.from(encodeMessage(message)).toString("hex"), bytes.toString("hex"));
    }
  });

  Deno.test(`${server}: begin and commit agree, and ends only grow`, () => {
    let end = 0n;
    let begin: Message | undefined;
    for (const message of payloads(golden).map(decodeMessage)) {
      if (message.kind === "begin") begin = message;
      if (message.kind !== "commit") continue;
      assert.ok(begin?.kind === "begin");
      assert.equal(begin.commitLsn, message.commitLsn);
      assert.equal(begin.commitTimestamp, message.commitTimestamp);
      assert.ok(message.commitLsn >= end && message.endLsn > message.commitLsn);
      end = message.endLsn;
    }
  });

  Deno.test(`${server}: chopped messages are refused`, () => {
    for (const bytes of samples(golden)) {
      for (let length = 1; length < bytes.length; length++) {
        assert.throws(
          () => decodeMessage(bytes.subarray(0, length)),
          (error) => error instanceof MmliteError && error.kind === "protocol",
        );
      }
    }
  });
}
