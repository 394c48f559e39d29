/**
 * What `deno task capture` has a server do, step by step, so that it sends every message in every shape.
 *
 * `tests/golden_test.ts` says what each step must have sent.
 */

/** A publication's `FOR TABLE` list differs: 13 was the first to publish a partitioned table itself. */
const PUBLISHES_PARTITIONED = 13;

/** Statements that lay the schema, before the slot is made. */
export function setupStatements(major: number): string[] {
  const measured = major >= PUBLISHES_PARTITIONED ? "measured" : "measured_low";
  return [
    `create schema "Straße"`,
    `create table plain (id bigint primary key, gone int, note text, amount numeric(10, 2))`,
    `alter table plain drop column gone`,
    `create table pair (a int, b text, note varchar(40), primary key (b, a))`,
    `create table whole (id int, note text)`,
    `alter table whole replica identity full`,
    `create table coded (id int primary key, code text not null, note text)`,
    `create unique index coded_by_code on coded (code)`,
    `alter table coded replica identity using index coded_by_code`,
    `create table journal (note text)`,
    `alter table journal replica identity nothing`,
    `create table "Straße"."Haus ""1""" ("Größe" int primary key)`,
    `create table large (id int primary key, note text, body text)`,
    `alter table large alter body set storage external`,
    `create table large_whole (id int, note text, body text)`,
    `alter table large_whole alter body set storage external`,
    `alter table large_whole replica identity full`,
    `create type mood as enum ('sad', 'glad')`,
    `create domain positive as int check (value > 0)`,
    `create type spot as (x int, y text)`,
    `create table typed (id int primary key, mood mood, size positive, spot spot, moods mood[])`,
    `create table measured (id int not null, note text) partition by range (id)`,
    `create table measured_low partition of measured (primary key (id)) for values from (0) to (100)`,
    ...(major >= 12
      ? [`create table doubled (id int primary key, twice int generated always as (id * 2) stored)`]
      : []),
    `create table hidden (id int primary key)`,
    `create publication mmlite for table plain, pair, whole, coded, journal, "Straße"."Haus ""1""", large,
      large_whole, typed, ${measured}${major >= 12 ? ", doubled" : ""}`,
    ...(major >= PUBLISHES_PARTITIONED
      ? [`create publication through_root for table measured with (publish_via_partition_root = true)`]
      : []),
    `select pg_replication_origin_create('mmlite_fra')`,
  ];
}

/** A few statements, and how to read what they caused. */
export interface CaptureStep {
  readonly title: string;
  /** First major release that can do it; 10 unless given. */
  readonly since?: number;
  readonly statements: readonly string[];
  /** `mmlite` unless given. */
  readonly publication?: string;
  /** Further options of the plugin, name and value in turn. */
  readonly options?: readonly string[];
}

/** The steps, in order; each is read by a fresh session of the plugin, which announces relations again. */
export const CAPTURE_STEPS: readonly CaptureStep[] = [
  {
    title: "insert",
    statements: [
      `insert into plain values (1, 'eins ''ß'' \u{1f600}', 1.5), (2, null, null), (3, '', -0.01)`,
    ],
  },
  { title: "update", statements: [`update plain set note = 'uno' where id = 1`] },
  { title: "update of the key", statements: [`update plain set id = 10 where id = 1`] },
  { title: "delete", statements: [`delete from plain where id = 10`] },
  {
    title: "composite key",
    statements: [
      `insert into pair values (1, 'x', 'n')`,
      `update pair set note = 'm'`,
      `update pair set a = 2`,
      `delete from pair`,
    ],
  },
  {
    title: "identity full",
    statements: [`insert into whole values (1, null)`, `update whole set note = 'n'`, `delete from whole`],
  },
  {
    title: "identity index",
    statements: [
      `insert into coded values (1, 'a', 'n')`,
      `update coded set id = 2`,
      `update coded set code = 'b'`,
      `delete from coded`,
    ],
  },
  { title: "identity nothing", statements: [`insert into journal values ('n')`] },
  { title: "names", statements: [`insert into "Straße"."Haus ""1""" values (1)`] },
  {
    title: "unchanged value",
    statements: [`insert into large values (1, 'n', repeat('x', 2100))`, `update large set note = 'm'`],
  },
  {
    title: "unchanged value, identity full",
    statements: [
      `insert into large_whole values (1, 'n', repeat('x', 2100))`,
      `update large_whole set note = 'm'`,
    ],
  },
  {
    title: "types of users",
    statements: [`insert into typed values (1, 'glad', 7, row(1, 'a,b'), array['sad', null]::mood[])`],
  },
  {
    title: "savepoints",
    statements: [
      `begin`,
      `insert into whole values (1, 'kept')`,
      `savepoint a`,
      `insert into whole values (2, 'dropped')`,
      `rollback to savepoint a`,
      `savepoint b`,
      `insert into whole values (3, 'kept')`,
      `release savepoint b`,
      `commit`,
    ],
  },
  {
    title: "relation changed in a transaction",
    statements: [
      `begin`,
      `insert into journal values ('before')`,
      `alter table journal add column more int default 5`,
      `insert into journal values ('after')`,
      `commit`,
    ],
  },
  {
    title: "truncate",
    statements: [`truncate whole`, `truncate plain, pair restart identity cascade`],
  },
  { title: "nothing published", statements: [`insert into hidden values (1)`] },
  { title: "rolled back", statements: [`begin`, `insert into plain values (9)`, `rollback`] },
  { title: "partition", statements: [`insert into measured values (1, 'n')`] },
  {
    title: "partition through its root",
    since: PUBLISHES_PARTITIONED,
    publication: "through_root",
    statements: [`insert into measured values (2, 'n')`],
  },
  { title: "generated column", since: 12, statements: [`insert into doubled values (4)`] },
  {
    title: "foreign transaction",
    statements: [
      `select pg_replication_origin_session_setup('mmlite_fra')`,
      `begin`,
      `select pg_replication_origin_xact_setup('1/AB', '2020-02-29 12:00:00.123456+00')`,
      `insert into whole values (1, 'foreign')`,
      `commit`,
      `select pg_replication_origin_session_reset()`,
    ],
  },
  {
    title: "foreign transaction, origin none",
    since: 16,
    options: ["origin", "none"],
    statements: [
      `select pg_replication_origin_session_setup('mmlite_fra')`,
      `insert into whole values (2, 'foreign')`,
      `select pg_replication_origin_session_reset()`,
      `insert into whole values (3, 'local')`,
    ],
  },
  {
    title: "origin made by the transaction that has it",
    statements: [
      `begin`,
      `select pg_replication_origin_create('mmlite_new')`,
      `select pg_replication_origin_session_setup('mmlite_new')`,
      `insert into whole values (1, 'foreign')`,
      `commit`,
      `select pg_replication_origin_session_reset()`,
    ],
  },
  {
    title: "logical messages",
    since: 14,
    options: ["messages", "true"],
    statements: [
      `begin`,
      `insert into whole values (1, 'n')`,
      `select pg_logical_emit_message(true, 'mmlite', 'in a transaction')`,
      `select pg_logical_emit_message(false, 'mmlite', '\\x00ff'::bytea)`,
      `commit`,
    ],
  },
  {
    title: "logical messages not asked for",
    statements: [`select pg_logical_emit_message(true, 'mmlite', 'in a transaction')`],
  },
  {
    // Without the array: its binary form holds the type's OID, which differs between servers.
    title: "binary values",
    since: 14,
    options: ["binary", "true"],
    statements: [`insert into typed values (2, 'sad', 7, null, null)`],
  },
  {
    // Beyond the work memory the server would stream, were it asked to; 18.0 to 18.6 then send an abort.
    title: "large transaction rolled back",
    statements: [
      `begin`,
      `savepoint a`,
      `insert into whole select i, 'dropped' from generate_series(1, 20) i`,
      `release savepoint a`,
      `insert into whole select i, 'dropped' from generate_series(1, 3000) i`,
      `rollback`,
      `insert into whole values (1, 'kept')`,
    ],
  },
];
