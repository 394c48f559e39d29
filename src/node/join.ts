/**
 * `mmlite join`: makes this host's database a member, ready for `run`. One straight line of steps, each of which may be
 * made again: what a crash leaves, the next attempt finds and goes on with.
 *
 * The order matters. Every slot, here and on the members, is made before any table is compared, so that what is
 * committed after the comparison is sent, and what was committed before it is in it.
 */
import type { Config } from "../config.ts";
import { advertisedUrl } from "../config/address.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { digestTables } from "../pg/digest.ts";
import { readNode, requireSameNode } from "../pg/identity.ts";
import { openLock } from "../pg/lock.ts";
import { ensureRemoved, forgetPeer, savePeer, setPeerRemoved } from "../pg/peers.ts";
import { createJob, noteCreated, readJobs } from "../pg/jobs.ts";
import { ensureOrigin, forgetProgress, startProgress } from "../pg/progress.ts";
import type { Query } from "../pg/query.ts";
import { readSchemaSteps } from "../pg/schema.ts";
import { requireUsable } from "../pg/server.ts";
import { dropSlot, slotName } from "../pg/slots.ts";
import { formatTableName } from "../table_name.ts";
import { TlsKeys } from "../pki/tls_keys.ts";
import { type Database, openDatabase, reachDatabase } from "./database.ts";
import { noteComingCopy } from "./coming_copy.ts";
import { readComparableTables } from "./digest_jobs.ts";
import { ensureIncarnation } from "./incarnation.ts";
import type { InviteToken } from "./invite_token.ts";
import { createTablesOf } from "./join_schema.ts";
import { ensureJoinCertificate } from "./join_certificate.ts";
import { MemberClient } from "./join_members.ts";
import type { JoinAnswer, Member } from "./join_messages.ts";
import { PeerSlots } from "./peer_slots.ts";
import { readPendingJoin } from "./pending_join.ts";
import { PublicationKeeper } from "./publication_keeper.ts";
import { type ComparedTable, compareTables, type TableDifference, toCompared } from "./table_comparison.ts";

/** Patterns that say which tables are replicated. */
export interface TablePatterns {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** What can become of rows that are here: see the modes of a copy. */
export type JoinMode = "replace" | "merge";

interface JoinOptions {
  /** As `run` will have it, but for the tables. */
  readonly config: Config;
  /** Without `include` those of the member that invites are taken, less what is excluded here. */
  readonly tables: Partial<TablePatterns>;
  /** Null to go on with a join that has its certificate. */
  readonly token: InviteToken | null;
  /** Members that need not be asked: what they have not sent to others by now never comes here. */
  readonly without: readonly string[];
  /** What becomes of rows that are here; unless said, there must be none, or they must be equal. */
  readonly mode: JoinMode | undefined;
  /** Whether the tables are created here as the member has them. */
  readonly createSchema: boolean;
  /** Tells people how far it is. */
  readonly say: (sentence: string) => void;
  readonly signal: AbortSignal;
}

/** How many tables that differ an error names. */
const MAX_NAMED_TABLES = 10;
/** Telling the members that this node does not join after all may take this long, milliseconds. */
const TAKE_BACK_MS = 15_000;

/**
 * Joins, and returns the tables to replicate; `removePendingJoin` ends it. Throws what stands in the way, with its
 * remedy: then nothing on any node keeps WAL for this one, and the certificate, if there is one by then, stays for the
 * next attempt.
 */
export async function joinCluster(options: JoinOptions): Promise<TablePatterns> {
  const { config, token, say, signal } = options;
  await preflight(config, signal);
  const name = { cluster: config.node.cluster, node: config.node.name };
  const files = config.listen.peers.tls!;
  const { inviter, urls } = await ensureJoinCertificate({
    ...{ state: config.state, files, name, token, say, signal },
  });
  const tls = await TlsKeys.load(files, name);
  const joining = new Joining(options, tls);
  try {
    return await joining.run(new MemberClient({ name: inviter, urls }, { tls, signal }));
  } catch (thrown) {
    await joining.takeBack();
    throw thrown;
  } finally {
    await joining.close();
  }
}

/** Throws what would keep this database from being a member, before anything is asked of anybody. */
async function preflight({ node, postgres, state }: Config, signal: AbortSignal): Promise<void> {
  const pending = await readPendingJoin(state);
  const { target, control, facts } = await reachDatabase(postgres.url, signal);
  try {
    requireUsable(facts);
    const query = control.query("look at the database");
    const found = await readSchemaSteps(query) === 0 ? undefined : await readNode(query);
    if (found !== undefined) requireSameNode(found, node);
    if (found !== undefined && pending === null) throw alreadyJoined(node);
    const lock = await openLock(target, signal);
    await lock.close();
  } finally {
    await control.close();
  }
}

function alreadyJoined({ name, cluster }: Config["node"]): MmliteError {
  return new MmliteError(
    "conflict",
    `Cannot join: this database is node "${name}" of cluster "${cluster}" already`,
    { hint: "Start it with `mmlite run` and the same settings" },
  );
}

/** What is under way after the certificate is there, and how to take it back. */
class Joining {
  readonly #options: JoinOptions;
  readonly #tls: TlsKeys;
  /** Members that were asked to keep what they commit, and may do so whatever came of it. */
  readonly #asked: MemberClient[] = [];
  /** Those of them that said that they do. */
  readonly #registered: MemberClient[] = [];
  /** Members that this database has a slot for, or may have. */
  readonly #held: string[] = [];
  /** Nodes that were removed from a member that was asked. */
  readonly #removed = new Set<string>();
  #created: readonly string[] = [];
  #database: Database | undefined;

  constructor(options: JoinOptions, tls: TlsKeys) {
    this.#options = options;
    this.#tls = tls;
  }

  async run(inviter: MemberClient): Promise<TablePatterns> {
    const url = advertisedUrl(this.#options.config.listen.peers, this.#options.config.listen.peers.address);
    const answer = await this.#register(inviter, url);
    const others = answer.members.filter(({ name }) => name !== inviter.name);
    const tables = choosePatterns(this.#options.tables, answer.tables);
    const database = await this.#openDatabase();
    if (this.#options.createSchema) {
      const { say, signal } = this.#options;
      this.#created = await createTablesOf(inviter, { database, tls: this.#tls, say, signal });
    }
    // Slots come after the publications that they are read through.
    await new PublicationKeeper({ database, patterns: tables }).sync();
    await this.#hold(database, { name: inviter.name, url: inviter.url });
    await this.#follow(database, inviter.name, answer);
    const missed: string[] = [];
    for (const member of others) if (!await this.#meet(database, member, url)) missed.push(member.name);
    requireAsked(missed, this.#options.without);
    const { mode } = this.#options;
    const isToBeFilled = mode === undefined && await this.#compare(database, tables);
    const job = mode ?? (isToBeFilled ? "empty" : undefined);
    await this.#shun(database);
    // The last step: nothing that may fail comes behind it.
    if (job !== undefined) await this.#awaitCopy(database, { tables, from: inviter.name, mode: job });
    return tables;
  }

  /** Takes back what was registered, as far as the nodes can be reached; says where not. */
  async takeBack(): Promise<void> {
    const { say, config } = this.#options;
    const clock = new AbortController();
    const timer = setTimeout(() => clock.abort(), TAKE_BACK_MS);
    await Promise.all(this.#asked.map(async ({ name, url }) => {
      const member = new MemberClient({ name, urls: [url] }, { tls: this.#tls, signal: clock.signal });
      await member.leave().catch((thrown) => {
        const remedy = `\`mmlite peers remove ${config.node.name} --force\``;
        say(`Node "${name}" may keep WAL for this one: join again, or run ${remedy} there`);
        say(`  ${toMmliteError(thrown).message}`);
      });
    }));
    clearTimeout(timer);
    for (const name of this.#held) await this.#release(name);
  }

  async close(): Promise<void> {
    await this.#database?.close();
  }

  /** The answer of a member that keeps from now on what it commits. */
  async #register(member: MemberClient, url: string | null): Promise<JoinAnswer<"register">> {
    this.#asked.push(member);
    const answer = await member.register(url);
    this.#registered.push(member);
    for (const name of answer.removed) this.#removed.add(name);
    this.#options.say(`Node "${member.name}" keeps from now on what is committed there for this node`);
    return answer;
  }

  async #openDatabase(): Promise<Database> {
    const { config, signal } = this.#options;
    const database = await openDatabase(config.postgres.url, signal);
    this.#database = database;
    const query = database.control.query("identify this node");
    await ensureIncarnation(query, { ...config.node, state: config.state });
    return database;
  }

  /**
   * Makes a member a peer of this node: from here on what is committed here is kept for it. What an attempt that was
   * cut short has kept would be sent although it is in the comparison: its slot is dropped first.
   */
  async #hold(database: Database, member: Member): Promise<void> {
    const query = database.control.query(`add peer "${member.name}"`);
    this.#held.push(member.name);
    await dropPeer(query, member.name);
    await savePeer(query, member);
    await ensureOrigin(query, member.name);
    await new PeerSlots(database).ensure(member.name);
  }

  /** Makes another member and this node peers of each other; whether it keeps now what is committed there. */
  async #meet(database: Database, member: Member, url: string | null): Promise<boolean> {
    const { say, signal } = this.#options;
    const { name } = member;
    if (member.url !== null || url !== null) await this.#hold(database, member);
    if (member.url === null) {
      say(this.#cannotBeDialled(name, url));
      return false;
    }
    const client = new MemberClient({ name, urls: [member.url] }, { tls: this.#tls, signal });
    try {
      await this.#follow(database, name, await this.#register(client, url));
      return true;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const { message, hint } = toMmliteError(thrown);
      say(`Node "${name}" does not keep yet what is committed there for this node: ${message}. ${hint}`);
      return false;
    }
  }

  /** What is received of a member begins where it keeps what it commits for this node. */
  async #follow(
    database: Database,
    member: string,
    { slot_lsn: lsn }: JoinAnswer<"register">,
  ): Promise<void> {
    await startProgress(database.control.query(`follow node "${member}"`), member, lsn);
  }

  #cannotBeDialled(member: string, url: string | null): string {
    if (url === null) return `Node "${member}" and this one cannot reach each other: neither can be dialled`;
    const { name } = this.#options.config.node;
    return `Node "${member}" cannot be dialled: run \`mmlite peers add ${name} ${url}\` there once this one runs`;
  }

  /**
   * Whether there are rows on members and none here. Throws `conflict` unless each table is empty here, or all are equal to
   * those of every member that could be asked.
   */
  async #compare(database: Database, patterns: TablePatterns): Promise<boolean> {
    const { say, signal } = this.#options;
    const tables = await readComparableTables(database.control.query("list the tables"), patterns);
    const count = tables.length === 1 ? "1 table: it" : `${tables.length} tables: each`;
    say(`Comparing ${count} must be empty here, or equal`);
    const digests = await digestTables({ target: database.target, tables, isHashed: () => true, signal });
    const here = digests.map(toCompared);
    const rows = here.reduce((sum, table) => sum + BigInt(table.rows), 0n);
    let isToBeFilled = false;
    for (const member of this.#registered) {
      const there = await this.#digestOf(member, here);
      const all = compareTables(here, there);
      const differences = rows === 0n ? all.filter(({ canBeFilled }) => !canBeFilled) : all;
      if (differences.length > 0) throw differing(member.name, differences);
      this.#sayMissing(member.name, { here, there });
      isToBeFilled ||= all.length > 0;
      if (all.length > 0) say(`They are empty here and not on "${member.name}"`);
      else if (rows === 0n) say(`They are empty here and on "${member.name}"`);
      else say(`They are equal to those of "${member.name}"`);
    }
    return isToBeFilled;
  }

  /** A node that runs begins with copying the rows; until it has ended, applications cannot write to the tables here. */
  async #awaitCopy(
    database: Database,
    { tables, from, mode }: {
      readonly tables: TablePatterns;
      readonly from: string;
      readonly mode: JoinMode | "empty";
    },
  ): Promise<void> {
    const { config, createSchema, say, signal } = this.#options;
    if (mode !== "merge") {
      await noteComingCopy(
        { database, self: config.node.name, patterns: tables, signal },
        { from, isGivenUp: mode === "replace" },
      );
    }
    const query = database.control.query("note that rows are to be copied");
    const isNoted = (await readJobs(query)).some(({ type, state, input }) =>
      type === "copy" && state === "queued" && isSameCopy(input, { from, mode, create_schema: createSchema })
    );
    if (!isNoted) {
      const input = { type: "copy", from, mode, create_schema: createSchema };
      const { id } = await createJob(query, { type: "copy", input });
      await noteCreated(query, id, this.#created);
    }
    if (mode === "merge") {
      return say(`The rows here and those of the members are merged next, while this node runs`);
    }
    say(`The rows of "${from}" are copied next, while this node runs`);
    say("  Until all have come, nobody can write to the tables here: write to the other nodes");
  }

  /** Empty tables that only one of the two has keep nobody from joining. */
  #sayMissing(
    member: string,
    { here, there }: { readonly here: readonly ComparedTable[]; readonly there: readonly ComparedTable[] },
  ): void {
    const present = new Set(here.map(formatTableName));
    const missing = there.map(formatTableName).filter((name) => !present.has(name));
    if (missing.length === 0) return;
    const { say } = this.#options;
    say(`Not replicated here, and empty on "${member}": ${missing.slice(0, MAX_NAMED_TABLES).join(", ")}`);
    say(
      `  Create what is missing before somebody writes there: changes of it would wait, with all after them`,
    );
  }

  /** A removed node has its certificate still, and must not come back through a member that never knew it. */
  async #shun(database: Database): Promise<void> {
    const query = database.control.query("take over which nodes were removed");
    this.#removed.delete(this.#options.config.node.name);
    for (const name of this.#removed) await ensureRemoved(query, name);
  }

  async #digestOf(member: MemberClient, here: readonly ComparedTable[]): Promise<ComparedTable[]> {
    const filled = new Set(here.filter(({ rows }) => rows !== "0").map(formatTableName));
    const names = new Map([...here, ...await member.tables()].map(({ schema, name }) => {
      const table = { schema, name };
      return [formatTableName(table), { ...table, hashed: filled.has(formatTableName(table)) }];
    }));
    let waited = 0;
    return await member.digest([...names.values()], () => {
      if (++waited % 4 === 0) this.#options.say(`Node "${member.name}" is still reading its tables`);
    });
  }

  async #release(peer: string): Promise<void> {
    try {
      await dropPeer(this.#database!.control.query(`take back peer "${peer}"`), peer);
    } catch (thrown) {
      this.#options.say(`Slot ${slotName(peer)} may still keep WAL here: ${toMmliteError(thrown).message}`);
    }
  }
}

/** Drops whatever there is of a peer that has exchanged nothing. */
async function dropPeer(query: Query, peer: string): Promise<void> {
  await dropSlot(query, slotName(peer));
  await forgetProgress(query, peer);
  await setPeerRemoved(query, peer);
  await forgetPeer(query, peer);
}

/** Throws `conflict` if a member that has to be asked was not. */
function requireAsked(missed: readonly string[], without: readonly string[]): void {
  const needed = missed.filter((name) => !without.includes(name));
  if (needed.length === 0) return;
  const names = needed.map((name) => `"${name}"`).join(" and ");
  const flags = missed.map((name) => `--without ${name}`).join(" ");
  throw new MmliteError(
    "conflict",
    `Cannot join: what is committed on ${names} until this node is a peer there would never come here`,
    {
      hint:
        `Make it reachable from here and join again; or stop the writes there until it has this node as a peer, ` +
        `and join with ${flags}`,
    },
  );
}

function choosePatterns(
  { include, exclude = [] }: Partial<TablePatterns>,
  theirs: TablePatterns,
): TablePatterns {
  if (include !== undefined) return { include, exclude };
  return { include: theirs.include, exclude: [...new Set([...theirs.exclude, ...exclude])] };
}

function differing(member: string, differences: readonly TableDifference[]): MmliteError {
  const named = differences.slice(0, MAX_NAMED_TABLES).map(({ table, here, there }) =>
    `${table} (here ${here}, there ${there})`
  );
  const more = differences.length > named.length ? ` and ${differences.length - named.length} more` : "";
  return new MmliteError(
    "conflict",
    `Cannot join: the rows differ from those of node "${member}" in ${named.join(", ")}${more}`,
    {
      hint:
        "Join with --mode replace to give up the rows here, or --mode merge to have the newer one of each everywhere; or " +
        "make them equal while nobody writes, or leave them out on both with --exclude; then run the same command again: the certificate is here already",
    },
  );
}

function isSameCopy(noted: unknown, wanted: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(wanted).every(([name, value]) => (noted as Record<string, unknown>)[name] === value);
}
