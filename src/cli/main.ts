/**
 * The command line: one file a command group, put together here; errors and exit codes leave from here.
 */
import { Command } from "commander";
import type { Environment } from "../config/environment.ts";
import { VERSION } from "../version.ts";
import { addCert } from "./cert.ts";
import { addConflicts } from "./conflicts.ts";
import { addConfig } from "./config_command.ts";
import { addCopy } from "./copy.ts";
import { addGlobalOptions, type Context, type GlobalOptions, processContext } from "./context.ts";
import { isHelp, reportFailure } from "./failure.ts";
import { addInvite } from "./invite.ts";
import { addJoin } from "./join.ts";
import { addPeers } from "./peers.ts";
import { addQuarantine } from "./quarantine.ts";
import { addRun } from "./run.ts";
import { addStatus } from "./status.ts";
import { addTables } from "./tables.ts";
import { addTokens } from "./token.ts";
import { addVerify } from "./verify.ts";
import { addVersion } from "./version.ts";

const EXIT_CODES = `
Exit codes: 0 yes; 1 the answer is no; 64 usage; 69 cannot reach; 70 internal; 75 try again; 77 permission;
78 configuration.`;

/** Runs one command line, without the program's name; returns the exit code and never throws. */
export async function main(argv: readonly string[], env: Environment): Promise<number> {
  const context = processContext(env);
  let exitCode = 0;
  const program = makeProgram(context, (code) => {
    exitCode = code;
  });
  if (argv.length === 0) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync(argv, { from: "user" });
    return exitCode;
  } catch (error) {
    return isHelp(error) ? 0 : reportFailure(error, context, program.opts<GlobalOptions>());
  }
}

function makeProgram(context: Context, finish: (exitCode: number) => void): Command {
  const program = new Command("mmlite")
    .description("Multi-master replication for PostgreSQL: one mmlite beside each database.")
    .version(`mmlite ${VERSION}`, "--version", "print the version")
    .configureHelp({ showGlobalOptions: true })
    // Errors are printed by reportFailure, in one form for all.
    .configureOutput({ outputError: () => {} })
    .addHelpText("after", EXIT_CODES)
    .exitOverride();
  addGlobalOptions(program);
  addRun(program, context, finish);
  addStatus(program, context, finish);
  addPeers(program, context, finish);
  addQuarantine(program, context, finish);
  addTables(program, context, finish);
  addConflicts(program, context, finish);
  addTokens(program, context, finish);
  addInvite(program, context, finish);
  addJoin(program, context, finish);
  addConfig(program, context, finish);
  addCert(program, context, finish);
  addCopy(program, context, finish);
  addVerify(program, context, finish);
  addVersion(program, context, finish);
  return program;
}
