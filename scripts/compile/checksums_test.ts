import assert from "node:assert/strict";
import { join } from "node:path";
import { CHECKSUMS, writeChecksums } from "./checksums.ts";

Deno.test("the checksums are of every artifact and of nothing else, in the form of sha256sum", async () => {
  const directory = await Deno.makeTempDir({ prefix: "mmlite-checksums-" });
  try {
    for (const name of ["mmlite", "mmlite-linux-arm64", "other"]) {
      await Deno.writeTextFile(join(directory, name), name === "mmlite" ? "" : "abc");
    }
    assert.deepEqual(await writeChecksums(directory), ["mmlite", "mmlite-linux-arm64"]);
    // The two values of FIPS 180-4's examples.
    assert.equal(
      await Deno.readTextFile(join(directory, CHECKSUMS)),
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  mmlite\n" +
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  mmlite-linux-arm64\n",
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
