/**
 * Who may import whom, as data, and the check of every source file against it (`deno task check`).
 *
 * Imports point downward: surface, assembly, roles, adapters, pure, base. The picture with its reasons stands
 * in docs/ARCHITECTURE.md.
 */
import { dirname, join, normalize, relative } from "node:path";
import process from "node:process";

const BASE = ["base"];
const PURE = [...BASE, "pgoutput", "wire"];
const ROLES = ["source", "link", "inbox", "apply", "copy", "verify"];

/**
 * Each part, and the parts it may import besides itself. A part is a folder of src/; `base` is the files
 * directly in it, `config` is config.ts with its folder, `mod` is the entry.
 *
 * Roles know the database and the bytes, never the network and never each other: node/ joins them.
 */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  base: [],
  pgoutput: BASE,
  wire: BASE,
  pg: PURE,
  http: [...BASE, "wire", "pki"],
  pki: [...BASE, "wire"],
  ...Object.fromEntries(ROLES.map((role) => [role, [...PURE, "pg"]])),
  config: BASE,
  node: [...PURE, "pg", "http", "pki", ...ROLES, "config"],
  api: [...BASE, "config", "node", "ui"],
  cli: [...BASE, "config", "node", "api", "pki"],
  ui: [],
  mod: [...PURE, "node", "config", "api", "cli"],
};

/** Parts whose types a part may import, and nothing else: node/ implements the port that api/ declares. */
const TYPES_ALLOWED: Readonly<Record<string, readonly string[]>> = { node: ["api"] };

/** Packages that only some parts may know. */
const GUARDED_PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "pg": ["pg"],
  "@types/pg": ["pg"],
  "postgres": ["pg"],
  "pg-connection-string": ["pg", "config"],
  "node:http2": ["http"],
  "hono": ["api"],
  "@hono/node-server": ["api"],
  "@hono/zod-openapi": ["api"],
  "commander": ["cli"],
  "@peculiar/x509": ["pki"],
  "reflect-metadata": ["pki"],
};

/** An import or export from elsewhere (1: `type`, 2: from where), or a bare or dynamic import (3). */
const IMPORT = /\b(?:import|export)\s+(type\s)?[\w\s{},*$]*?\bfrom\s*"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"/g;

interface Import {
  readonly specifier: string;
  readonly typesOnly: boolean;
  readonly isTest: boolean;
}

/** A line that breaks a rule. */
export interface Violation {
  readonly path: string;
  readonly line: number;
  readonly rule: string;
}

/** The part that a path (from the repository's root, with `/`) belongs to; undefined outside the program. */
export function partOf(path: string): string | undefined {
  if (path === "mod.ts") return "mod";
  if (path === "src/config.ts") return "config";
  const [root, folder, ...rest] = path.split("/");
  if (root !== "src") return undefined;
  return rest.length ? folder : "base";
}

/** Every rule that one file breaks. Unit tests may import test support and use `Deno`. */
export function checkFile(path: string, text: string): Violation[] {
  const isTest = path.endsWith("_test.ts");
  const code = blankComments(text);
  const lineAt = (index: number) => code.slice(0, index).split("\n").length;
  const violations: Violation[] = [];
  for (const match of code.matchAll(IMPORT)) {
    const specifier = match[2] ?? match[3];
    const rule = brokenRule(path, { specifier, typesOnly: match[1] !== undefined, isTest });
    if (rule) violations.push({ path, line: lineAt(match.index + match[0].length), rule });
  }
  if (!isTest) {
    for (const match of code.matchAll(/\bDeno\b\s*[.[]/g)) {
      const rule = "src/ runs on Node.js too and never uses Deno's own API";
      violations.push({ path, line: lineAt(match.index), rule });
    }
  }
  return violations;
}

function brokenRule(path: string, { specifier, typesOnly, isTest }: Import): string | undefined {
  const part = partOf(path)!;
  const allowed = ALLOWED[part];
  if (!allowed) return `folder "${part}" has no row in scripts/check_layers.ts`;
  if (!specifier.startsWith(".")) return brokenPackageRule(part, specifier, isTest);
  const target = normalize(join(dirname(path), specifier));
  const targetPart = partOf(target);
  if (isTest && target.startsWith("tests/")) return undefined;
  if (targetPart === undefined) return `the program never imports "${target}"`;
  if (targetPart === part || allowed.includes(targetPart)) return undefined;
  if (TYPES_ALLOWED[part]?.includes(targetPart)) {
    return typesOnly
      ? undefined
      : `${part} imports from ${targetPart} by \`import type\` only ("${specifier}")`;
  }
  return `${part} never imports ${targetPart} ("${specifier}"); it may import ${
    allowed.join(", ") || "nothing"
  }`;
}

function brokenPackageRule(part: string, specifier: string, isTest: boolean): string | undefined {
  if (/^(https?|jsr|npm|file):/.test(specifier)) return `"${specifier}" is not pinned in deno.json`;
  const owners = GUARDED_PACKAGES[specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/")];
  if (!owners || owners.includes(part) || isTest) return undefined;
  return `only ${owners.join(", ")} may import "${specifier}"`;
}

/** Comments as spaces, line breaks kept. Good enough for formatted code: no import line holds a `//` string. */
function blankComments(text: string): string {
  const blank = (comment: string) => comment.replace(/[^\n]/g, " ");
  return text.replace(/\/\*[\s\S]*?\*\//g, blank).replace(/^\s*\/\/.*$/gm, blank);
}

async function* sourceFiles(directory: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(directory)) {
    const path = join(directory, entry.name);
    if (entry.isDirectory) yield* sourceFiles(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

async function main(): Promise<number> {
  const root = join(import.meta.dirname!, "..");
  const paths = [join(root, "mod.ts")];
  for await (const path of sourceFiles(join(root, "src"))) paths.push(path);
  const violations: Violation[] = [];
  for (const path of paths.sort()) {
    violations.push(...checkFile(relative(root, path).replaceAll("\\", "/"), await Deno.readTextFile(path)));
  }
  for (const { path, line, rule } of violations) console.error(`${path}:${line}: ${rule}`);
  console.log(
    violations.length
      ? `Layers: ${violations.length} forbidden imports or calls.`
      : `Layers: ${paths.length} files keep to the allowed imports.`,
  );
  return violations.length ? 1 : 0;
}

if (import.meta.main) process.exit(await main());
