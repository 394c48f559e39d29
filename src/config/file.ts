/**
 * The configuration file: YAML, checked strictly, every complaint with its line and column.
 */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from "yaml";
import { MmliteError } from "../errors.ts";
import { describeIssues } from "./issue.ts";
import type { Layer } from "./layer.ts";
import { FileSchema, type Settings } from "./schema.ts";
import { getSetting, setSetting } from "./settings.ts";

// A path in the file is relative to the file, so that it means the same from every working directory.
const PATH_KEYS = [
  "postgres.url_file",
  "listen.peers.tls.cert",
  "listen.peers.tls.key",
  "listen.peers.tls.ca",
  "listen.peers.tls.ca_key",
  "listen.api.socket",
  "listen.api.token_file",
  "state",
] as const;

/** Reads a configuration file; throws `config` with the place of the first thing that is wrong. */
export async function readConfigFile(path: string): Promise<Layer> {
  return parseConfigFile(await readText(path), path);
}

/** Takes the text of a configuration file; `path` is for messages and for the relative paths in it. */
export function parseConfigFile(text: string, path: string): Layer {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${path}:${line}:${col}`;
  };
  if (document.errors.length > 0) {
    const [{ message, pos }] = document.errors;
    throw new MmliteError("config", `Cannot read ${place(pos[0])}: ${message}`, {
      hint: "Correct the YAML; keys and their values are `key: value`, nested ones are indented",
    });
  }
  const settings = checkDocument(document, place);
  for (const key of PATH_KEYS) {
    const relative = getSetting(settings, key);
    if (typeof relative === "string") setSetting(settings, key, resolve(dirname(path), relative));
  }
  return { settings, originOf: (key) => place(offsetOf(document, key.split("."))) };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new MmliteError("config", `Cannot read configuration file "${path}": ${(error as Error).message}`, {
      hint: "Check the path and that the user that runs mmlite may read the file",
      cause: error,
    });
  }
}

function checkDocument(document: Document.Parsed, place: (offset: number) => string): Settings {
  // An empty file is a file without settings.
  const checked = FileSchema.safeParse(toPlain(document, place) ?? {});
  if (checked.success) return checked.data;
  const [first] = describeIssues(checked.error)
    .map((issue) => ({ issue, offset: offsetOf(document, issue.path, issue.unknownKey) }))
    .sort((a, b) => a.offset - b.offset);
  const { issue, offset } = first;
  const subject = issue.unknownKey || issue.key === "" ? "" : `${issue.key} is wrong, `;
  throw new MmliteError("config", `Cannot use ${place(offset)}: ${subject}${issue.text}`, {
    hint: issue.hint,
  });
}

function toPlain(document: Document.Parsed, place: (offset: number) => string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    // Aliases that multiply without end.
    throw new MmliteError("config", `Cannot read ${place(0)}: ${(error as Error).message}`, { cause: error });
  }
}

/** Where the value at a path begins, or its key; the nearest group that exists where it is missing. */
function offsetOf(document: Document.Parsed, path: readonly PropertyKey[], wantsKey = false): number {
  if (wantsKey) {
    const group = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
    const pair = isMap(group) &&
      group.items.find(({ key }) => isScalar(key) && String(key.value) === path.at(-1));
    if (pair && isNode(pair.key) && pair.key.range) return pair.key.range[0];
  }
  for (let depth = path.length; depth > 0; depth--) {
    const node = document.getIn(path.slice(0, depth), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return document.contents?.range?.[0] ?? 0;
}
