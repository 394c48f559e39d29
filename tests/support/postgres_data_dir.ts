/**
 * The files of a data directory that tests write and read: settings, access rules, the postmaster's lock file.
 */
import { join } from "node:path";
import { giveToServer } from "./scratch.ts";

/** The superuser, who always may connect over the socket without a password. */
export const SUPERUSER = "postgres";

/** Settings of postgresql.conf by name. */
export type ServerSettings = Readonly<Record<string, string>>;

/** Adds settings to postgresql.conf, where a later line wins over an earlier one. */
export async function addSettings(dataDir: string, settings: ServerSettings): Promise<void> {
  const lines = Object.entries(settings).map(([name, value]) =>
    `${name} = '${value.replaceAll("'", "''")}'\n`
  );
  const before = await Deno.readTextFile(join(dataDir, "postgresql.conf"));
  await writeFile(dataDir, { name: "postgresql.conf", text: before + lines.join("") });
}

/** Writes pg_hba.conf: `method` for everyone but the superuser on the socket. */
export async function writeAccessRules(
  dataDir: string,
  { method, from }: { method: string; from: string },
): Promise<void> {
  const rules = [`local all ${SUPERUSER} trust`, `local replication ${SUPERUSER} trust`];
  for (const database of ["all", "replication"]) {
    rules.push(`local ${database} all ${method}`, `host ${database} all ${from} ${method}`);
  }
  await writeFile(dataDir, { name: "pg_hba.conf", text: rules.join("\n") + "\n" });
}

async function writeFile(dataDir: string, { name, text }: { name: string; text: string }): Promise<void> {
  const path = join(dataDir, name);
  await Deno.writeTextFile(path, text);
  await giveToServer(path);
}

/** Whether the postmaster `pid` takes connections: the eighth line of its lock file says so, for pg_ctl. */
export async function isReady(dataDir: string, pid: number): Promise<boolean> {
  const lines = await readLockFile(dataDir);
  return lines[0] === String(pid) && lines[7]?.trim() === "ready";
}

/** Removes the small System V segment that a killed postmaster leaves: key and id, in the seventh line. */
export async function removeSharedMemory(dataDir: string): Promise<void> {
  const id = (await readLockFile(dataDir))[6]?.trim().split(/\s+/)[1];
  if (id) await new Deno.Command("ipcrm", { args: ["-m", id], stdout: "null", stderr: "null" }).output();
}

async function readLockFile(dataDir: string): Promise<string[]> {
  const text = await Deno.readTextFile(join(dataDir, "postmaster.pid")).catch(() => "");
  return text.split("\n");
}
