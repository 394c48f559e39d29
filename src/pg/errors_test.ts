import assert from "node:assert/strict";
import { openClient } from "./client.ts";
import { openControl } from "./control.ts";
import { parsePostgresUrl } from "./target.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { describeServerError, isShutdown, mapPostgresError, sqlState } from "./errors.ts";
import { MmliteError } from "../errors.ts";

const server = (code: string, message: string, more: object = {}) => ({
  severity: "ERROR",
  code,
  message,
  detail: "Key (id)=(secret) already exists.",
  ...more,
});

Deno.test("each kind of trouble is told apart", () => {
  const cases: [object, string, RegExp?][] = [
    [{ code: "ECONNREFUSED", message: "connect ECONNREFUSED" }, "unreachable"],
    [{ code: "ENOENT", message: "connect ENOENT" }, "unreachable"],
    [new Error("timeout expired"), "unreachable"],
    [{ code: "CONNECT_TIMEOUT", message: "write CONNECT_TIMEOUT h:5432" }, "unreachable"],
    [{ code: "CONNECTION_ENDED", message: "write CONNECTION_ENDED h:5432" }, "unreachable"],
    [{ code: "CONNECTION_DESTROYED", message: "write CONNECTION_DESTROYED h:5432" }, "unreachable"],
    [new Error("Connection terminated unexpectedly"), "unreachable"],
    [server("28P01", "password authentication failed"), "permission", /PGPASSWORD/],
    [server("28000", 'no pg_hba.conf entry for host "h", no encryption'), "permission", /sslmode=require/],
    [server("3D000", 'database "x" does not exist'), "config"],
    [
      server("42501", "permission denied for function pg_replication_origin_create"),
      "permission",
      /GRANT EXECUTE/,
    ],
    [
      server("42501", "must be superuser or replication role to use replication slots"),
      "permission",
      /REPLICATION/,
    ],
    [server("53300", "too many clients"), "transient", /max_connections/],
    [server("53400", "all replication slots are in use"), "transient", /max_replication_slots/],
    [server("57P03", "the database system is starting up"), "unreachable"],
    [server("55006", 'replication slot "s" is active for PID 7'), "transient"],
    [
      server("55000", 'logical decoding requires "wal_level" >= "logical"'),
      "server_setting",
      /wal_level = logical/,
    ],
    [
      server("55000", "die Datenbank »app« akzeptiert gerade keine Verbindungen", {
        routine: "CheckMyDatabase",
      }),
      "transient",
      /ALLOW_CONNECTIONS true/,
    ],
    [server("55000", 'cannot read from logical replication slot "s"'), "slot_lost"],
    [server("58P01", 'could not access file "x": No such file or directory'), "internal"],
    [server("42704", 'publication "p" does not exist'), "slot_lost"],
    [server("25P04", "terminating connection due to transaction timeout"), "transient"],
    [server("40P01", "deadlock detected"), "transient"],
    [server("08006", "connection failure"), "unreachable"],
    [server("42703", 'column "x" does not exist'), "internal"],
    [new TypeError("x is not a function"), "internal"],
  ];
  for (const [thrown, kind, hint] of cases) {
    const error = mapPostgresError(thrown, "do it");
    assert.equal(error.kind, kind, JSON.stringify(thrown));
    assert.match(error.message, /^Cannot do it: ([^A-Z]|PostgreSQL)/);
    assert.match(error.hint, hint ?? /./);
    assert.doesNotMatch(error.message + error.hint, /secret/);
  }
});

Deno.test("a message that quotes values gives way to the names it is about", () => {
  const error = server("22P02", 'invalid input syntax for type integer: "secret"', { column: "age" });
  assert.equal(describeServerError(error), 'a value in column "age" was refused (SQLSTATE 22P02)');
  assert.match(mapPostgresError(server("P0001", "secret"), "do it").message, /SQLSTATE P0001/);
  const unique = server("23505", 'duplicate key value violates unique constraint "t_pkey"', {
    schema: "public",
    table: "t",
    constraint: "t_pkey",
  });
  assert.equal(
    describeServerError(unique),
    'a duplicate key of "public.t" was refused by "t_pkey" (SQLSTATE 23505)',
  );
});

Deno.test("what users raise is not repeated, whatever SQLSTATE they give it", () => {
  for (const state of ["23505", "MY001", "HV000"]) {
    assert.doesNotMatch(describeServerError(server(state, "secret")), /secret/);
  }
  assert.doesNotMatch(
    describeServerError(server("55000", "secret", { routine: "exec_stmt_raise" })),
    /secret/,
  );
});

Deno.test("a function that refuses a change is named, and nothing else of the context", () => {
  const where = "PL/pgSQL function public.refuse() line 3 at RAISE\nSQL statement \"INSERT … 'secret'\"";
  assert.equal(
    describeServerError(server("P0001", "secret", { where })),
    "a change was refused by function public.refuse() (SQLSTATE P0001)",
  );
  const inner = 'SQL statement "secret"\nPL/pgSQL function f() line 1 at SQL statement';
  assert.equal(
    describeServerError(server("22012", "secret", { where: inner })),
    "a value was refused (SQLSTATE 22012)",
  );
});

Deno.test("a shutdown is seen through our own error, and an error of ours is not mapped again", () => {
  const shutdown = server("57P01", "terminating connection due to administrator command");
  const mapped = mapPostgresError(shutdown, "do it");
  assert.equal(mapped.message, "Cannot do it: PostgreSQL is shutting down or starting up");
  assert.ok(isShutdown(shutdown) && isShutdown(mapped));
  assert.equal(sqlState(mapped), "57P01");
  assert.equal(mapPostgresError(mapped, "do something else"), mapped);
  assert.ok(!isShutdown(new MmliteError("internal", "x")) && !isShutdown({ code: "EPIPE" }));
});

Deno.test("a database that takes no connections for now is tried again, and says how it takes them", async (t) => {
  for (const major of [10, 18] as const) {
    await t.step(`on PostgreSQL ${major}`, async () => {
      await using server = await startPostgres({ major });
      await server.createDatabase("app");
      await server.sql("postgres", "ALTER DATABASE app ALLOW_CONNECTIONS false");
      const target = await parsePostgresUrl(server.url("app"), {});
      const refused = {
        kind: "transient",
        message: /: database "app" is not currently accepting connections$/,
        hint: /ALLOW_CONNECTIONS true/,
      };
      await assert.rejects(openClient(target, { applicationName: "test" }), refused);
      const control = openControl(target, "test");
      try {
        await assert.rejects(control.run("look", "SELECT 1"), refused);
        await server.sql("postgres", "ALTER DATABASE app ALLOW_CONNECTIONS true");
        await control.run("look", "SELECT 1");
      } finally {
        await control.close();
      }
    });
  }
});
