/**
 * `mmlite cert`: the cluster's certificate authority and the certificates of its nodes; needs no running node.
 */
import type { Command } from "commander";
import { X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { LoadedSettings } from "../config.ts";
import { tlsDirectory, tlsFilesIn, tlsFilesOf } from "../config/tls.ts";
import { MmliteError } from "../errors.ts";
import { NODE_NAME, NODE_NAME_RULE } from "../node_name.ts";
import {
  AUTHORITY_DAYS,
  CERTIFICATE_DAYS,
  createAuthority,
  issueCertificate,
  readAuthority,
} from "../pki/authority.ts";
import { certificateFacts } from "../pki/certificate.ts";
import { formatPeerUri } from "../pki/identity.ts";
import { createFiles, ensureKeyDirectory } from "../pki/key_files.ts";
import { type HostName, parseHostName } from "../pki/subject_names.ts";
import { readShown, shownJson, shownRows } from "./cert_show.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { loadLocalSettings } from "./local_settings.ts";
import { formatData, formatTable } from "./output.ts";

interface CertOptions extends GlobalOptions {
  readonly cluster?: string;
  readonly state?: string;
  readonly days?: string;
  readonly out?: string;
}

interface IssueOptions extends CertOptions {
  readonly san?: string;
  readonly ca?: string;
  readonly caKey?: string;
}

/** A file that was written, and what it is for. */
type Written = readonly [key: string, path: string, purpose: string];

/** Longest life that can be asked for, days: dates after 9999 have no form in a certificate. */
const MAX_DAYS = 36_500;

/** Adds the commands. */
export function addCert(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const cert = program.command("cert").description(
    "make and show the certificates that nodes trust each other by",
  );
  const withPlaces = (command: Command) =>
    command
      .option("--cluster <NAME>", "the cluster, as in the configuration if not given")
      .option("--state <DIR>", "state directory; the files are in its folder tls");
  const ca = withPlaces(cert.command("ca").description("make the cluster's certificate authority, once"))
    .option("--days <N>", `days that it holds (default: ${AUTHORITY_DAYS})`)
    .option("--out <DIR>", "where to write, STATE/tls if not given");
  setAction<CertOptions>(ca, { action: (options) => makeAuthority(options, context), finish });
  const issue = withPlaces(
    cert.command("issue <NODE>").description("issue a certificate for a node, where the CA's key is"),
  )
    .option("--san <LIST>", "further names of the node, such as dns:fra.example,ip:192.0.2.7")
    .option("--days <N>", `days that it holds (default: ${CERTIFICATE_DAYS})`)
    .option("--out <DIR>", "where to write, a directory of the node's name if not given")
    .option("--ca <FILE>", "the CA's certificate, STATE/tls/ca.pem if not given")
    .option("--ca-key <FILE>", "the CA's key, STATE/tls/ca-key.pem if not given");
  setAction<IssueOptions>(issue, {
    action: (options, [node]) => issueFor(node, { options, context }),
    finish,
  });
  const show = withPlaces(
    cert.command("show [FILE]").description(
      "what certificates say; this node's and its CA's if no file is named",
    ),
  );
  setAction<CertOptions>(show, {
    action: (options, [file]) => showFiles(file, { options, context }),
    finish,
  });
}

async function makeAuthority(options: CertOptions, context: Context): Promise<number> {
  const { settings } = await loadLocalSettings("cert", { options, context });
  const { cluster } = settings.node;
  const directory = options.out ?? tlsDirectory(settings.state);
  const files = tlsFilesIn(directory);
  const { certificate, key } = await createAuthority({
    cluster,
    days: parseDays(options.days, AUTHORITY_DAYS),
  });
  await ensureKeyDirectory(directory);
  await createFiles([
    { path: files.caKey, text: key, secret: true },
    { path: files.ca, text: certificate.toString(), secret: false },
  ]);
  printWritten({ cluster }, { certificate, options, context }, [
    ["ca", files.ca, "the CA's certificate: every node needs a copy"],
    ["ca_key", files.caKey, "its key: whoever has it can add nodes to the cluster"],
  ]);
  return 0;
}

async function issueFor(
  node: string,
  { options, context }: { options: IssueOptions; context: Context },
): Promise<number> {
  if (!NODE_NAME.test(node)) {
    throw new MmliteError("usage", `Cannot issue for "${node}": expected ${NODE_NAME_RULE}`);
  }
  const loaded = await loadLocalSettings("cert", { options, context });
  const authority = await readAuthority(authorityFiles(options, loaded));
  const { settings, origins } = loaded;
  const isGiven = origins.get("node.cluster") !== "default";
  const name = {
    cluster: isGiven ? settings.node.cluster : authority.cluster ?? settings.node.cluster,
    node,
  };
  const issued = await issueCertificate(authority, {
    name,
    hosts: parseHosts(options.san),
    days: parseDays(options.days, CERTIFICATE_DAYS),
  });
  const directory = options.out ?? node;
  const files = tlsFilesIn(directory);
  await ensureKeyDirectory(directory);
  await createFiles([
    { path: files.key, text: issued.key, secret: true },
    { path: files.cert, text: issued.certificate, secret: false },
    { path: files.ca, text: await readFile(authorityFiles(options, loaded).ca, "utf8"), secret: false },
  ]);
  const certificate = new X509Certificate(issued.certificate);
  printWritten({ identity: formatPeerUri(name) }, { certificate, options, context }, [
    ["cert", files.cert, "the node's certificate"],
    ["key", files.key, "its key: move it to the node, and keep no copy"],
    ["ca", files.ca, "the authorities to trust"],
  ]);
  if (!options.quiet) {
    context.note(`Put the three files into the folder tls of the state directory of node "${node}"`);
  }
  return 0;
}

async function showFiles(
  file: string | undefined,
  { options, context }: { options: CertOptions; context: Context },
): Promise<number> {
  const certificates = await readShown(file === undefined ? await ownFiles(options, context) : [file]);
  if (options.output !== "table") {
    context.print(formatData({ items: certificates.map(shownJson) }, options.output));
  } else {
    context.print(certificates.map((one) => formatTable(shownRows(one), context.colour)).join("\n\n"));
  }
  return certificates.every(({ valid }) => valid) ? 0 : 1;
}

/** The certificates of the node that runs here, as far as there are any. */
async function ownFiles(options: CertOptions, context: Context): Promise<string[]> {
  const { cert, ca } = tlsFilesOf(await loadLocalSettings("cert", { options, context }));
  const present = [cert, ca].filter((path) => existsSync(path));
  return present.length > 0 ? present : [ca];
}

function authorityFiles(options: IssueOptions, loaded: LoadedSettings): { ca: string; caKey: string } {
  const { ca, caKey } = tlsFilesOf(loaded);
  const files = { ca: options.ca ?? ca, caKey: options.caKey ?? caKey };
  if (files.caKey !== null) return { ca: files.ca, caKey: files.caKey };
  throw new MmliteError("config", `Cannot issue a certificate: there is no CA key beside "${files.ca}"`, {
    hint: "Run this on the node where `mmlite cert ca` was run, or name the CA's files by --ca and --ca-key",
  });
}

function parseDays(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  const days = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  if (days >= 1 && days <= MAX_DAYS) return days;
  throw new MmliteError("usage", `Cannot use --days "${text}": expected a number from 1 to ${MAX_DAYS}`);
}

function parseHosts(list = ""): HostName[] {
  return list.split(",").filter(Boolean).map((text) => {
    const host = parseHostName(text.trim());
    if (host !== null) return host;
    throw new MmliteError("usage", `Cannot use --san "${text}": expected dns:NAME or ip:ADDRESS`, {
      hint: "Separate several by commas, such as dns:fra.example,ip:192.0.2.7",
    });
  });
}

function printWritten(
  about: Readonly<Record<string, string>>,
  { certificate, options, context }: {
    readonly certificate: X509Certificate;
    readonly options: CertOptions;
    readonly context: Context;
  },
  written: readonly Written[],
): void {
  const { fingerprint, notAfter } = certificateFacts(certificate);
  if (options.output === "table") {
    context.print(formatTable(written.map(([, path, purpose]) => [path, purpose]), context.colour));
    return;
  }
  const files = Object.fromEntries(written.map(([key, path]) => [key, resolve(path)]));
  context.print(
    formatData({ ...about, fingerprint, expires_at: notAfter.toISOString(), files }, options.output),
  );
}
