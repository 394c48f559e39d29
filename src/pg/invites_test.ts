import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { closeClient, openClient } from "./client.ts";
import { createInvite, deleteInvite, readInvite, readInvites, useInvite } from "./invites.ts";
import { queryWith } from "./query.ts";
import { ensureSchema, readSchemaSteps, schemaStatements } from "./schema.ts";
import { parsePostgresUrl } from "./target.ts";

for (const major of [10, 18] as const) {
  Deno.test(`an invite is used once, by one node with one key, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    const target = await parsePostgresUrl(server.url(), {});
    const [client, other] = await Promise.all(
      [1, 2].map(() => openClient(target, { applicationName: "mmlite test" })),
    );
    const query = queryWith(client);
    for (const step of schemaStatements(0).slice(0, 1)) await query(step);
    await ensureSchema(query);
    assert.equal(await readSchemaSteps(query), schemaStatements(0).length);

    const made = await createInvite(query, { id: "a", secretHash: "ff", node: null, ttlSeconds: 3600 });
    assert.deepEqual([made.remainingSeconds, made.usedAt, made.usedBy, made.node], [3600, null, null, null]);
    assert.equal(Date.parse(made.expiresAt) - Date.parse(made.createdAt), 3_600_000);
    const won = await Promise.all([
      useInvite(query, { id: "a", node: "fra", key: "1" }),
      useInvite(queryWith(other), { id: "a", node: "nyc", key: "2" }),
    ]);
    assert.deepEqual([...won].sort(), [false, true]);
    const [node, key] = won[0] ? ["fra", "1"] : ["nyc", "2"];
    const first = await readInvite(query, "a");
    assert.deepEqual([first?.usedBy, first?.usedKey], [node, key]);
    assert.equal(await useInvite(query, { id: "a", node, key }), true);
    assert.equal(await useInvite(query, { id: "a", node, key: "3" }), false);
    assert.equal((await readInvite(query, "a"))?.usedAt, first?.usedAt);

    await createInvite(query, { id: "b", secretHash: "ff", node: "fra", ttlSeconds: 3600 });
    assert.equal(await useInvite(query, { id: "b", node: "nyc", key: "1" }), false);
    assert.equal(await useInvite(query, { id: "b", node: "fra", key: "1" }), true);
    const late = await createInvite(query, { id: "c", secretHash: "ff", node: null, ttlSeconds: 0 });
    assert.equal(late.remainingSeconds, 0);
    assert.equal(await useInvite(query, { id: "c", node: "fra", key: "1" }), false);
    assert.equal(await useInvite(query, { id: "none", node: "fra", key: "1" }), false);

    assert.deepEqual((await readInvites(query)).map(({ id }) => id), ["c", "b", "a"]);
    assert.deepEqual([await deleteInvite(query, "a"), await deleteInvite(query, "a")], [true, false]);
    await query("UPDATE mmlite.invite SET expires_at = now() - interval '8 days' WHERE id = 'c'");
    await createInvite(query, { id: "d", secretHash: "ff", node: null, ttlSeconds: 60 });
    assert.deepEqual((await readInvites(query)).map(({ id }) => id), ["d", "b"]);
    await Promise.all([closeClient(client), closeClient(other)]);
  });
}
