/**
 * Fetching one npm package when it is needed, by its checksum.
 *
 * Large packages of programs stay out of deno.lock, because Deno fetches all that is in it before it runs anything.
 * A deno of its own fetches one, with a lock file that holds that package alone.
 */
import { fileURLToPath } from "node:url";

/** A package as npm knows it. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  /** `sha512-…` as in npm's own lock files; where left out nothing is checked. */
  readonly integrity?: string;
  /** A module of the package, with a slash before it, or nothing for its main one. */
  readonly entry: string;
}

/** Time allowed for a package to arrive, milliseconds; the largest has 40 MB. */
const FETCH_TIMEOUT_MS = 600_000;

// Some entries read __dirname in an ES module and throw; the package is there nevertheless.
const FETCH_SCRIPT = `
const [specifier] = Deno.args;
const options = specifier.endsWith(".json") ? { with: { type: "json" } } : undefined;
await import(specifier, options).catch((thrown) => {
  if (!(thrown instanceof ReferenceError)) throw thrown;
});
console.log(import.meta.resolve(specifier));
`;

/** Fetches a package unless Deno has it, and returns the path of its entry. */
export async function fetchNpmPackage({ name, version, integrity, entry }: NpmPackage): Promise<string> {
  const exact = `${name}@${version}`;
  const lock = await Deno.makeTempFile({ suffix: ".lock" });
  try {
    if (integrity !== undefined) await Deno.writeTextFile(lock, lockText(exact, version, integrity));
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-config", `--lock=${lock}`, FETCH_SCRIPT, `npm:${exact}${entry}`],
      signal: AbortSignal.timeout(FETCH_TIMEOUT_MS),
    }).output();
    const decoder = new TextDecoder();
    if (code !== 0) throw new Error(`Cannot fetch npm package "${exact}": ${decoder.decode(stderr).trim()}`);
    return fileURLToPath(decoder.decode(stdout).trim());
  } finally {
    await Deno.remove(lock);
  }
}

function lockText(exact: string, version: string, integrity: string): string {
  return JSON.stringify({
    version: "5",
    specifiers: { [`npm:${exact}`]: version },
    npm: { [exact]: { integrity } },
  });
}
