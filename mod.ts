/**
 * mmlite: multi-master replication for PostgreSQL. The public API, and the entry of the program.
 *
 * @module
 */
import process from "node:process";
import { main } from "./src/cli/main.ts";

export { type Config, loadConfig } from "./src/config.ts";
export { type ErrorKind, MmliteError } from "./src/errors.ts";
export { formatLsn, type Lsn, parseLsn } from "./src/lsn.ts";

if (import.meta.main) process.exitCode = await main(process.argv.slice(2), process.env);
