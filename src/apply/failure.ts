/**
 * What an error of PostgreSQL means for the transaction that met it: try again, wait until the schemas fit, or
 * wait for an operator. Names table, constraint, SQLSTATE and the transaction's position, never a row value.
 */
import { type ErrorKind, MmliteError, toMmliteError, type TransactionPlace } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { describeServerError, mapPostgresError, sqlState } from "../pg/errors.ts";
import {
  CONFLICT_STOPS_SQLSTATE,
  POSITION_MOVED_SQLSTATE,
  SETTLE_ROWS_SQLSTATE,
} from "../pg/conflict_schema.ts";

/** Where an error was met. */
export interface FailureContext {
  /** The sender's node name. */
  readonly origin: string;
  /** The sender's position of the transaction; undefined between transactions. */
  readonly commitLsn: Lsn | undefined;
  /** Where it ends, if that is known: later than its commit LSN. */
  readonly endLsn?: Lsn;
  /** What the statement was doing; undefined when the connection failed. */
  readonly doing: string | undefined;
}

interface Meaning {
  readonly kind: ErrorKind;
  readonly hint?: string;
}

const CHANGED_MEANWHILE: Meaning = {
  kind: "transient",
  hint: "Nothing to do: the table was changed here, and is read again with the next attempt",
};
const SCHEMAS_DIFFER: Meaning = { kind: "schema_mismatch" };
/** Another session has come to the same rows: row by row, or again, it is settled. */
const DISTURBED: Meaning = { kind: "transient" };

/** What could be settled is settled before: this index or constraint is over what is not known before a row is written. */
const STANDS_IN_THE_WAY: Meaning = {
  kind: "apply_failed",
  hint:
    "Change or delete another row here that stands in the way, then run `mmlite peers retry`; or skip the transaction",
};

const MEANINGS: Readonly<Record<string, Meaning>> = {
  "23505": STANDS_IN_THE_WAY,
  "23P01": STANDS_IN_THE_WAY,
  [SETTLE_ROWS_SQLSTATE]: DISTURBED,
  "42P10": SCHEMAS_DIFFER,
  "42P01": SCHEMAS_DIFFER,
  "42703": SCHEMAS_DIFFER,
  "42704": SCHEMAS_DIFFER,
  "42804": SCHEMAS_DIFFER,
  "42883": SCHEMAS_DIFFER,
  "428C9": SCHEMAS_DIFFER,
  "3F000": SCHEMAS_DIFFER,
};

/** By the function in the server that raises the error, where its SQLSTATE means several things and its text is
 * translated: a prepared statement's result has changed; row security would hide rows from the role. */
const ROUTINE_MEANINGS: Readonly<Record<string, Meaning>> = {
  RevalidateCachedQuery: CHANGED_MEANWHILE,
  check_enable_rls: {
    kind: "permission",
    hint: "Give the role BYPASSRLS, or connect as a superuser: apply must see every row",
  },
};

/** Maps an error that a statement or the connection met; it names the transaction that it stops. */
export function applyError(thrown: unknown, context: FailureContext): MmliteError {
  const error = meaningOf(thrown, context);
  const { commitLsn, endLsn } = context;
  if (commitLsn === undefined || error.transaction !== undefined) return error;
  return error.in(endLsn === undefined || endLsn <= commitLsn ? { commitLsn } : { commitLsn, endLsn });
}

/** An error of ours that stops a transaction, with the transaction in its message. */
export function stopsTransaction(thrown: unknown, origin: string, place: TransactionPlace): MmliteError {
  const { kind, message, hint, cause } = toMmliteError(thrown);
  const where = `in the transaction of "${origin}" at ${formatLsn(place.commitLsn)}`;
  return new MmliteError(kind, `${message} (${where})`, { hint, cause, transaction: place });
}

function meaningOf(thrown: unknown, context: FailureContext): MmliteError {
  if (thrown instanceof MmliteError) return thrown;
  const doing = describe(context);
  const state = sqlState(thrown);
  if (state === undefined) return mapPostgresError(thrown, doing);
  if (state === POSITION_MOVED_SQLSTATE) {
    return new MmliteError(
      "transient",
      `Cannot ${doing}: another session has moved the position of this origin`,
      {
        hint:
          "Nothing to do if a newer session took over; otherwise make sure that only one mmlite uses the database",
        cause: thrown,
      },
    );
  }
  if (state === CONFLICT_STOPS_SQLSTATE) {
    const { message, schema, table } = thrown as { message: string; schema?: string; table?: string };
    return new MmliteError(
      "apply_failed",
      `Cannot ${doing}: ${message} at "${schema}.${table}", whose policy is to stop`,
      {
        hint: "Make the row fit, or choose another policy for the table; then run `mmlite peers retry`",
        cause: thrown,
      },
    );
  }
  const meaning = ROUTINE_MEANINGS[(thrown as { routine?: string }).routine ?? ""] ?? MEANINGS[state];
  const mapped = mapPostgresError(thrown, doing);
  if (meaning === undefined && mapped.kind !== "internal") return mapped;
  return new MmliteError(meaning?.kind ?? "apply_failed", `Cannot ${doing}: ${reason(thrown, state)}`, {
    hint: meaning?.hint,
    cause: thrown,
  });
}

/** What another session that comes to the same rows makes a statement fail of: a guard, or a key that is taken now. */
const DISTURBANCES = [SETTLE_ROWS_SQLSTATE, "23505", "23P01"];

/** Whether another session may have come in the way, so that the transaction has to be settled again. */
export function isDisturbed(error: MmliteError): boolean {
  return DISTURBANCES.includes(sqlState(error.cause) ?? "");
}

function describe({ origin, commitLsn, doing }: FailureContext): string {
  if (commitLsn === undefined) return doing ?? `apply transactions of "${origin}"`;
  const transaction = `the transaction of "${origin}" at ${formatLsn(commitLsn)}`;
  return doing === undefined ? `apply ${transaction}` : `${doing} in ${transaction}`;
}

function reason(thrown: unknown, state: string): string {
  const said = describeServerError(thrown);
  return said.includes(state) ? said : `${said} (SQLSTATE ${state})`;
}
