import assert from "node:assert/strict";
import { join } from "node:path";
import { createFiles, ensureKeyDirectory, replaceFile } from "./key_files.ts";

async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function modeOf(path: string): Promise<number> {
  return (await Deno.stat(path)).mode! & 0o777;
}

Deno.test("keys are their owner's, whatever the umask", async () => {
  for (const mask of [0o000, 0o077]) {
    await withDirectory(async (directory) => {
      const before = Deno.umask(mask);
      try {
        const inner = join(directory, "x/tls");
        await ensureKeyDirectory(inner);
        await ensureKeyDirectory(inner);
        const [key, cert] = [join(inner, "key.pem"), join(inner, "node.pem")];
        await createFiles([{ path: key, text: "k", secret: true }, { path: cert, text: "c", secret: false }]);
        assert.deepEqual([await modeOf(inner), await modeOf(key), await modeOf(cert)], [0o700, 0o600, 0o644]);
        await replaceFile({ path: key, text: "k2", secret: true });
        assert.deepEqual([await modeOf(key), await Deno.readTextFile(key)], [0o600, "k2"]);
      } finally {
        Deno.umask(before);
      }
    });
  }
});

Deno.test("what is there stays, and nothing is left of a set that cannot be written whole", async () => {
  await withDirectory(async (directory) => {
    const [a, b] = [join(directory, "a"), join(directory, "b")];
    await Deno.writeTextFile(b, "old");
    const files = [{ path: a, text: "new", secret: true }, { path: b, text: "new", secret: true }];
    await assert.rejects(createFiles(files), { kind: "conflict", message: `Cannot write "${b}": it exists` });
    assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["b"]);
    assert.equal(await Deno.readTextFile(b), "old");
  });
});

Deno.test("a place that cannot be written is named", async () => {
  await assert.rejects(createFiles([{ path: "/nowhere/a", text: "", secret: true }]), {
    kind: "config",
    message: /^Cannot write "\/nowhere\/a": ENOENT/,
  });
  await assert.rejects(ensureKeyDirectory("/dev/null/x"), {
    kind: "config",
    message: /^Cannot write "\/dev\/null\/x"/,
  });
});
