import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import type { ConflictsConfig } from "../config.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { openControl } from "../pg/control.ts";
import { ensureSchema } from "../pg/schema.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { ConflictPolicies } from "./conflict_policies.ts";

type Configured = Partial<Pick<ConflictsConfig, "default" | "isDefault" | "tables">>;

const T = { schema: "public", name: "t" };
const plain = (policy: TablePolicy["policy"]): TablePolicy => ({ policy, types: {} });

Deno.test("the API's word wins over the file's, that over the default, and lasts", async () => {
  await using server = await startPostgres({ major: 18 });
  const control = openControl(await parsePostgresUrl(server.url(), {}), "mmlite test");
  await ensureSchema(control.query("test"));
  let changes = 0;
  const load = async (configured: Configured, trackCommitTimestamp = true) => {
    const policies = new ConflictPolicies({
      database: { control, facts: { trackCommitTimestamp } },
      configured: { default: plain("last_update_wins"), isDefault: true, tables: [], ...configured },
      changed: () => void changes++,
    });
    await policies.load();
    return policies;
  };
  const ofFile: Configured = { tables: [{ ...T, policy: plain("error") }] };
  const policies = await load(ofFile);
  const digest = policies.digest;
  assert.deepEqual(policies.settingOf(T), { ...plain("error"), from: "file" });
  assert.deepEqual(policies.settingOf({ ...T, name: "u" }), {
    ...plain("last_update_wins"),
    from: "default",
  });
  const other = await load({ default: plain("error"), isDefault: false });
  assert.equal(other.settingOf(T).from, "file");

  const kept: TablePolicy = { policy: "keep_local", types: { update_missing: "error" } };
  await policies.set(T, kept, () => {});
  assert.deepEqual(policies.policyOf("public", "t"), kept);
  assert.deepEqual([changes, policies.digest === digest], [1, false]);
  assert.deepEqual((await load(ofFile)).settingOf(T), { ...kept, from: "api" });
  await policies.set(T, { ...kept, types: { ...kept.types, insert_exists: "keep_local" } }, () => {});
  assert.equal(changes, 1, "another way to say the same");

  await assert.rejects(policies.set(T, null, () => assert.fail("not so")), /not so/);
  assert.equal(policies.settingOf(T).from, "api");
  assert.deepEqual(policies.imagine(T, null), { ...plain("error"), from: "file" });
  await policies.set(T, null, () => {});
  assert.deepEqual([policies.settingOf(T).from, policies.digest, changes], ["file", digest, 2]);

  assert.equal(
    (await load({ default: plain("error") })).digest,
    (await load({
      default: plain("error"),
      tables: [{ ...T, policy: { policy: "error", types: { update_exists: "error" } } }],
    })).digest,
  );
  const blind = await load({}, false);
  assert.notEqual(blind.digest, (await load({})).digest, "a node without versions settles in another way");
  assert.equal(blind.digest, (await load({ default: plain("apply_remote") })).digest);

  await control.run(
    "test",
    `INSERT INTO mmlite.table_policy (table_schema, table_name, policy) VALUES ('a', 'b', '{"policy": "newest"}')`,
  );
  await assert.rejects(load({}), { kind: "config", message: /policy of table a\.b in mmlite\.table_policy/ });
  await control.close();
});
