/**
 * Errors on their way out: what is printed on standard error, and the exit code.
 */
import { CommanderError } from "commander";
import { ERROR_POLICY, MmliteError, toMmliteError } from "../errors.ts";
import { toPrintable } from "../printable.ts";
import type { Context, OutputFormat } from "./context.ts";

/** Prints an error and returns its exit code. */
export function reportFailure(
  thrown: unknown,
  context: Context,
  options: { readonly output?: OutputFormat; readonly verbose?: boolean },
): number {
  const error = thrown instanceof CommanderError ? usageError(thrown) : toMmliteError(thrown);
  const { exitCode, title, httpStatus } = ERROR_POLICY[error.kind];
  if (options.output === "json") {
    const { kind, message: detail, hint } = error;
    const type = `urn:mmlite:problem:${kind}`;
    context.note(JSON.stringify({ type, kind, title, status: httpStatus, detail, hint }));
    return exitCode;
  }
  context.note(`error: ${printableLines(error.message)}`);
  context.note(`hint: ${printableLines(error.hint)}`);
  if (options.verbose) {
    for (const line of causeLines(error.cause)) context.note(`cause: ${printableLines(line)}`);
  }
  return exitCode;
}

/** Part of an error may be what another host said. */
function printableLines(text: string): string {
  return text.split("\n").map(toPrintable).join("\n");
}

/** Whether commander only wants to say that it has printed the help that was asked for. */
export function isHelp(thrown: unknown): boolean {
  return thrown instanceof CommanderError && thrown.exitCode === 0;
}

/** Commander's two lines, `error: …` and perhaps `(Did you mean …?)`, as message and hint. */
function usageError(thrown: CommanderError): MmliteError {
  if (thrown.code === "commander.help") return new MmliteError("usage", "No command is given");
  const [first, second] = thrown.message.replace(/^error: /, "").split("\n");
  const message = first.charAt(0).toUpperCase() + first.slice(1).replace(/\.$/, "");
  const hint = second?.replace(/^\(|\)$/g, "");
  return new MmliteError("usage", message, { hint });
}

/** The causes of an error, the nearest first, each in one line. */
function causeLines(cause: unknown): string[] {
  const lines: string[] = [];
  for (let one = cause; one !== undefined; one = one instanceof Error ? one.cause : undefined) {
    lines.push(one instanceof Error ? `${one.name}: ${one.message}` : String(one));
  }
  return lines;
}
