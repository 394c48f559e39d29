import assert from "node:assert/strict";
import { parseTablePattern, tableMatcher } from "./table_pattern.ts";
import { formatTableName } from "../table_name.ts";

const table = (schema: string, name: string) => ({ schema, name });

Deno.test("patterns match schema and name apart", () => {
  const cases: [string, [string, string][], [string, string][]][] = [
    ["public.*", [["public", "a"], ["public", "a.b"]], [["app", "a"], ["public2", "a"]]],
    ["app.orders", [["app", "orders"]], [["app", "orders2"], ["app", "Orders"], ["xapp", "orders"]]],
    ["*.audit_?", [["a", "audit_1"], ["b", "audit_😀"]], [["a", "audit_"], ["a", "audit_12"]]],
    ['app."odd.na*me"', [["app", "odd.na*me"]], [["app", "odd.naXme"]]],
    ['"a""b".x', [['a"b', "x"]], [["ab", "x"]]],
    ['app.log_"*"?', [["app", "log_*1"]], [["app", "log_11"]]],
    ["a+b.c(d", [["a+b", "c(d"]], [["aab", "c(d"]]],
  ];
  for (const [pattern, yes, no] of cases) {
    const matches = parseTablePattern(pattern);
    for (const [schema, name] of yes) assert.ok(matches(table(schema, name)), `${pattern} ${schema}.${name}`);
    for (const [schema, name] of no) assert.ok(!matches(table(schema, name)), `${pattern} ${schema}.${name}`);
  }
});

Deno.test("what is excluded is not matched", () => {
  const matches = tableMatcher({ include: ["public.*", "app.*"], exclude: ["*.audit_*"] });
  assert.ok(matches(table("app", "orders")));
  assert.ok(!matches(table("public", "audit_log")));
});

Deno.test("a malformed pattern is a config error that quotes it", () => {
  for (const pattern of ["", "orders", "a.b.c", "a.", ".b", 'a."b', 'a."" ', "a b.c", 'a."b"".c']) {
    assert.throws(() => parseTablePattern(pattern), (error: Error & { kind: string }) => {
      assert.equal(error.kind, "config");
      assert.ok(error.message.startsWith(`Cannot use table pattern ${JSON.stringify(pattern)}`));
      return true;
    });
  }
});

Deno.test("a formatted name is a pattern that matches just it", () => {
  for (const name of [table("app", "orders"), table('a"b', "c.d"), table("x", "w*"), table("a b", "?")]) {
    assert.ok(parseTablePattern(formatTableName(name))(name));
  }
  assert.equal(formatTableName(table("app", "orders")), "app.orders");
});
