/**
 * The one error class, and the one table that says what each kind of error means.
 *
 * A message says what was being done, on what, and why it failed; the hint says what to do. Row values never
 * appear in either. Foreign errors are mapped in by the adapters (`pg/errors.ts`, `http/`), and out to HTTP by
 * `api/problem.ts` and to exit codes by `cli/`.
 */
import type { Lsn } from "./lsn.ts";

/** What the owner of a link does about an error: try again, wait for an operator, or refuse the peer. */
export type Disposition = "retry" | "block" | "fence";

interface Policy {
  /** What a link does when its attempt ends with this kind. */
  readonly disposition: Disposition;
  /** The command line's exit code (sysexits.h). */
  readonly exitCode: number;
  /** The control API's status. */
  readonly httpStatus: number;
  /** One phrase for people, the `title` of RFC 9457. */
  readonly title: string;
  /** The remedy where the error itself names none. */
  readonly hint: string;
}

/** Every kind of error, what follows from it, and the remedy of last resort. */
export const ERROR_POLICY = {
  usage: {
    disposition: "block",
    exitCode: 64,
    httpStatus: 400,
    title: "Wrong usage",
    hint: "Run the command with --help",
  },
  invalid_input: {
    disposition: "block",
    exitCode: 64,
    httpStatus: 400,
    title: "Invalid input",
    hint: "Correct the value and send it again",
  },
  not_found: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 404,
    title: "Not found",
    hint: "List what there is and check the name",
  },
  conflict: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Conflicts with what is there",
    hint: "Look at the present state and choose another name or address",
  },
  precondition_failed: {
    disposition: "block",
    exitCode: 75,
    httpStatus: 412,
    title: "Changed meanwhile",
    hint: "Read the resource again and repeat the change with its new ETag",
  },
  forbidden: {
    disposition: "block",
    exitCode: 77,
    httpStatus: 403,
    title: "Not allowed",
    hint: "Use the address and credentials the control API was set up with",
  },
  unauthenticated: {
    disposition: "block",
    exitCode: 77,
    httpStatus: 401,
    title: "No valid credentials",
    hint: "Give the control API's token with --token-file",
  },
  config: {
    disposition: "block",
    exitCode: 78,
    httpStatus: 422,
    title: "Wrong configuration",
    hint: "Correct the configuration; `mmlite config check` tells whether it is right",
  },
  server_setting: {
    disposition: "block",
    exitCode: 78,
    httpStatus: 422,
    title: "PostgreSQL is not set up for this",
    hint: "Change the PostgreSQL setting that is named and restart or reload the server",
  },
  permission: {
    disposition: "block",
    exitCode: 77,
    httpStatus: 403,
    title: "PostgreSQL refused",
    hint: "Grant the role what is named, or connect as another role",
  },
  unreachable: {
    disposition: "retry",
    exitCode: 69,
    httpStatus: 503,
    title: "Cannot reach",
    hint: "Check that the server runs and that the address is right",
  },
  untrusted: {
    disposition: "retry",
    exitCode: 77,
    httpStatus: 409,
    title: "Certificate not accepted",
    hint: "Issue the node that is named a certificate with `mmlite cert issue`; it is tried again meanwhile",
  },
  transient: {
    disposition: "retry",
    exitCode: 75,
    httpStatus: 503,
    title: "Temporary trouble",
    hint: "Nothing to do: it is tried again",
  },
  copying: {
    disposition: "retry",
    exitCode: 75,
    httpStatus: 503,
    title: "Rows are being copied",
    hint: "Nothing to do: it goes on once the rows have come",
  },
  timeout: {
    disposition: "retry",
    exitCode: 75,
    httpStatus: 504,
    title: "Not in time",
    hint: "Try again, or allow more time",
  },
  protocol: {
    disposition: "retry",
    exitCode: 70,
    httpStatus: 502,
    title: "Protocol violated",
    hint:
      "Check that both ends are mmlite of compatible versions and that nothing between them changes bytes",
  },
  schema_mismatch: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Schemas differ",
    hint: "Make the table fit on both nodes; the link goes on by itself then",
  },
  apply_failed: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Transaction cannot be applied",
    hint:
      "Remove the cause: it is tried again within a minute, or at once after `mmlite peers retry`. Or run " +
      "`mmlite peers skip` on the node that receives, which keeps the transaction in quarantine",
  },
  clock_skew: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Clocks differ",
    hint: "Set the clock of the node that is wrong, and let NTP keep it; the link goes on by itself then",
  },
  slot_lost: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Replication slot lost",
    hint: "Run `mmlite peers renew` on both nodes and repair the rows of the one that receives: " +
      "docs/OPERATIONS.md, A slot that is lost",
  },
  fenced: {
    disposition: "fence",
    exitCode: 78,
    httpStatus: 409,
    title: "Identity does not match",
    hint: "Find out which of the two nodes was cloned or restored before any row moves",
  },
  refused: {
    disposition: "block",
    exitCode: 1,
    httpStatus: 409,
    title: "Peer refused",
    hint: "See the peer's own status and log",
  },
  aborted: {
    disposition: "retry",
    exitCode: 75,
    httpStatus: 503,
    title: "Stopped",
    hint: "Nothing to do: the work was stopped on request",
  },
  internal: {
    disposition: "retry",
    exitCode: 70,
    httpStatus: 500,
    title: "Internal error",
    hint: "Report it with the log line and the version",
  },
} as const satisfies Record<string, Policy>;

/** A kind of error; see {@link ERROR_POLICY}. */
export type ErrorKind = keyof typeof ERROR_POLICY;

/** A transaction of another node, by its positions there. */
export interface TransactionPlace {
  readonly commitLsn: Lsn;
  /** Undefined while its end has not come. */
  readonly endLsn?: Lsn;
}

interface MmliteErrorOptions {
  /** The remedy; the kind's own where left out. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** The transaction that it stops. */
  readonly transaction?: TransactionPlace;
}

/** An error with a kind and a remedy. */
export class MmliteError extends Error {
  override readonly name = "MmliteError";
  readonly kind: ErrorKind;
  readonly hint: string;
  /** The transaction of another node that it stops, if it stops one. */
  readonly transaction: TransactionPlace | undefined;

  constructor(kind: ErrorKind, message: string, options: MmliteErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.hint = options.hint ?? ERROR_POLICY[kind].hint;
    this.transaction = options.transaction;
  }

  /** The same error, which stops a transaction. */
  in(transaction: TransactionPlace): MmliteError {
    const { hint, cause } = this;
    return new MmliteError(this.kind, this.message, { hint, cause, transaction });
  }

  /** What the owner of a link does about this error. */
  get disposition(): Disposition {
    return ERROR_POLICY[this.kind].disposition;
  }
}

/** The remedy where the positions of two nodes belong to another past, of one of them at least. */
export function beginAnew(one: string, other: string): string {
  return `Run \`mmlite peers renew ${other}\` on "${one}" and \`mmlite peers renew ${one}\` on "${other}". Then make ` +
    "the rows equal: of a node that was restored from a backup `mmlite verify --repair --source NAME` on that node, " +
    `with the other one as NAME; of a standby that took over \`mmlite verify --peer ${other} --repair --newest\` on ` +
    `"${one}" (docs/OPERATIONS.md, Fenced)`;
}

/** The remedy where what one node was to get from another is gone, and nothing else is. */
export function sendAnew(from: string, to: string): string {
  return `Run \`mmlite peers renew ${to} --only sent\` on "${from}" and \`mmlite peers renew ${from} --only received\` ` +
    `on "${to}", then \`mmlite verify --repair --source ${from}\` on "${to}" (docs/OPERATIONS.md, A slot that is lost)`;
}

/** Any thrown value as an `MmliteError`; what is not one becomes `internal` with the original as its cause. */
export function toMmliteError(thrown: unknown): MmliteError {
  if (thrown instanceof MmliteError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new MmliteError("internal", message, { cause: thrown });
}

/** Whether a string names a kind of error, for kinds that arrive from a peer of another version. */
export function isErrorKind(text: string): text is ErrorKind {
  return Object.hasOwn(ERROR_POLICY, text);
}
