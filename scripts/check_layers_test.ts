import assert from "node:assert/strict";
import { checkFile, partOf } from "./check_layers.ts";

const rules = (path: string, text: string) =>
  checkFile(path, text).map(({ line, rule }) => `${line}: ${rule}`);

Deno.test("a path belongs to its folder, the root's files to base, config to config", () => {
  const parts = [
    "mod.ts",
    "src/lsn.ts",
    "src/config.ts",
    "src/config/file.ts",
    "src/link/link.ts",
    "tests/x.ts",
  ];
  assert.deepEqual(parts.map(partOf), ["mod", "base", "config", "config", "link", undefined]);
});

Deno.test("imports downward and within a folder are allowed", () => {
  const text =
    `import { Lsn } from "../lsn.ts";\nimport type {\n  Frame,\n} from "../wire/frame.ts";\nimport "./ports.ts";\n`;
  assert.deepEqual(rules("src/link/link.ts", text), []);
});

Deno.test("a forbidden edge is named with its line", () => {
  const text =
    `// from "../inbox/inbox.ts" is not an import\nimport {\n  run,\n} from "../inbox/inbox.ts";\n`;
  const [rule, ...more] = rules("src/link/link.ts", text);
  assert.match(rule, /^4: link never imports inbox/);
  assert.deepEqual(more, []);
});

Deno.test("roles never import http, base imports nothing of ours, dynamic imports count", () => {
  assert.match(
    rules("src/apply/apply.ts", `export * from "../http/dial.ts";`)[0],
    /apply never imports http/,
  );
  assert.match(rules("src/log.ts", `import "./wire/frame.ts";`)[0], /base never imports wire/);
  assert.match(rules("src/wire/codec.ts", `await import("../pg/client.ts");`)[0], /wire never imports pg/);
});

Deno.test("node takes the types of api, not its code", () => {
  const text =
    `import type {\n  NodeControl,\n} from "../api/control.ts";\nimport { app } from "../api/app.ts";\n`;
  const [rule, ...more] = rules("src/node/node.ts", text);
  assert.match(rule, /^4: node imports from api by `import type` only/);
  assert.deepEqual(more, []);
});

Deno.test("drivers and node:http2 stay in their adapters", () => {
  assert.match(rules("src/apply/apply.ts", `import pg from "pg";`)[0], /only pg may import "pg"/);
  assert.match(rules("src/link/link.ts", `import http2 from "node:http2";`)[0], /only http may import/);
  assert.match(rules("src/cli/main.ts", `import x from "npm:x@1";`)[0], /not pinned/);
});

Deno.test("only tests use Deno and test support", () => {
  assert.match(rules("src/log.ts", `const pid = Deno.pid;`)[0], /1: src\/ runs on Node.js too/);
  assert.deepEqual(
    rules("src/log_test.ts", `import "../tests/support/poll.ts";\nDeno.test("x", () => {});`),
    [],
  );
  assert.match(rules("src/log.ts", `import "../tests/support/poll.ts";`)[0], /never imports "tests/);
});
