/**
 * The command lines of the repository's tasks: the usage of each is the head comment of its module. What cannot be used
 * ends the process with one line.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { parseArgs, type ParseArgsConfig } from "node:util";

/** Exit code of a command line that cannot be used. */
const EXIT_USAGE = 2;

type Options = NonNullable<ParseArgsConfig["options"]>;
/** What was given, by the options' names. */
type Values<Given extends Options> = ReturnType<typeof parseArgs<{ options: Given }>>["values"];

/**
 * The options of the task whose module has this URL. Ends the process where its usage is asked for, after printing
 * that, and where there is an option that it does not have.
 */
export function readOptions<Given extends Options>(moduleUrl: string, options: Given): Values<Given> {
  return readCommandLine(moduleUrl, { options, takesNames: false }).values;
}

/** The same for a task that takes names and no option. */
export function readNames(moduleUrl: string): readonly string[] {
  return readCommandLine(moduleUrl, { options: {}, takesNames: true }).names;
}

/** The whole number above 0 that an option was given; ends the process where it is none. */
export function wholeNumber(text: string, option: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  refuseOptions(`Cannot use ${option} ${JSON.stringify(text)}: it takes a whole number above 0`);
}

/** Ends the process over what was asked for. */
export function refuseOptions(problem: string): never {
  console.error(problem);
  process.exit(EXIT_USAGE);
}

function readCommandLine<Given extends Options>(
  moduleUrl: string,
  { options, takesNames }: { readonly options: Given; readonly takesNames: boolean },
): { readonly values: Values<Given>; readonly names: readonly string[] } {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    console.log(headComment(readFileSync(fileURLToPath(moduleUrl), "utf8")));
    process.exit(0);
  }
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: takesNames });
    return { values: values as Values<Given>, names: positionals };
  } catch (thrown) {
    // Of what `parseArgs` says, the first sentence.
    const [problem] = (thrown as Error).message.split(/\.\s|\.?\n|\.$/);
    refuseOptions(`${problem}; --help tells which there are`);
  }
}

function headComment(source: string): string {
  const [, comment] = /^\/\*\*\n([^]*?)\n \*\//.exec(source)!;
  return comment.replaceAll(/^ \* ?/gm, "");
}
