/**
 * Log lines: LogTape with one category per part, to standard error as text or JSON lines.
 *
 * Libraries log nothing; nothing but identifiers, positions and counts is ever logged, no row value.
 */
import process from "node:process";
import { configure, getJsonLinesFormatter, getLogger, getTextFormatter, type Logger } from "@logtape/logtape";

/** Levels that `--log-level` takes. */
export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
/** A level that `--log-level` takes. */
export type LogLevel = (typeof LOG_LEVELS)[number];
/** Formats that `--log-format` takes. */
export const LOG_FORMATS = ["text", "json"] as const;
/** A format that `--log-format` takes. */
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Sends log lines of `level` and above to standard error; may be called again to change either. */
export async function configureLog(options: { level: LogLevel; format: LogFormat }): Promise<void> {
  const format = options.format === "json"
    ? getJsonLinesFormatter({ message: "rendered", properties: "flatten" })
    : getTextFormatter({ timestamp: "rfc3339", category: ".", value: "bare" });
  await configure({
    reset: true,
    sinks: { stderr: (record) => void process.stderr.write(format(record)) },
    loggers: [
      { category: "mmlite", lowestLevel: options.level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
    ],
  });
}

/** The logger of one part of the program, such as `log("link", "fra")`. */
export function log(...category: string[]): Logger {
  return getLogger(["mmlite", ...category]);
}
