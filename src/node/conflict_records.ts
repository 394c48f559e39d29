/**
 * Conflicts as the control API shows them.
 */
import type { ConflictFilter } from "../api/control.ts";
import type { Conflict, ConflictList, WholeConflict } from "../api/conflict_schemas.ts";
import { MmliteError } from "../errors.ts";
import { type ConflictRow, readConflict, readConflicts } from "../pg/conflicts.ts";
import type { Query } from "../pg/query.ts";
import { formatTableName } from "../table_name.ts";

/** Digits that a number of JavaScript keeps whatever they are. */
const EXACT_DIGITS = 15;

/** A page of conflicts, the newest first. */
export async function listConflicts(
  query: Query,
  { limit, ...filter }: ConflictFilter,
): Promise<ConflictList> {
  const rows = await readConflicts(query, filter, limit + 1);
  const items = rows.slice(0, limit).map(toConflict);
  return { items, next_cursor: rows.length > limit ? items.at(-1)!.id : null };
}

/** One conflict with both rows; throws `not_found`. */
export async function getConflict(query: Query, id: string): Promise<WholeConflict> {
  const row = await readConflict(query, id);
  if (row === undefined) {
    throw new MmliteError(
      "not_found",
      `Cannot find conflict ${id}: there is none of that id, or it was forgotten`,
      {
        hint: "`mmlite conflicts list` shows those that are kept",
      },
    );
  }
  const { local, remote, ...conflict } = toConflict(row);
  return {
    ...conflict,
    local: { row: parseExact(row.localRow), ...local },
    remote: { row: parseExact(row.remoteRow), ...remote },
  };
}

function toConflict(row: ConflictRow): Conflict {
  return {
    id: row.id,
    noted_at: row.notedAt,
    table: formatTableName(row),
    type: row.type,
    resolution: row.resolution,
    change: row.change,
    key: parseExact(row.key),
    local: { origin: row.localOrigin, commit_timestamp: row.localTimestamp },
    remote: { origin: row.remoteOrigin, commit_timestamp: row.remoteTimestamp, lsn: row.remoteLsn },
  };
}

/** A row of JSON, in which a number that would come out as another one stays text. */
function parseExact(json: string | null): Record<string, unknown> | null {
  if (json === null) return null;
  const keep = (_key: string, value: unknown, { source }: { source?: string }) =>
    typeof value === "number" && !isExact(value, source!) ? source : value;
  return JSON.parse(json, keep as Parameters<typeof JSON.parse>[1]);
}

/** Whether a number that stands as `source` in JSON is the same in JavaScript: it has not too many digits, and bounds. */
function isExact(value: number, source: string): boolean {
  const digits = source.replace(/e.*/i, "").replace(/[^0-9]/g, "").replace(/^0+/, "").length;
  return digits <= EXACT_DIGITS && Number.isFinite(value) && (value !== 0 || digits === 0);
}
