/**
 * Kinds of changes, as they are counted and kept.
 */
import { MESSAGE_TYPE } from "../pgoutput/peek.ts";

/** What a change does to a row, or to whole tables. */
export type ChangeKind = "insert" | "update" | "delete" | "truncate";

/** Of a change by the first byte of its message. */
export function changeKindOf(type: number): ChangeKind {
  switch (type) {
    case MESSAGE_TYPE.insert:
      return "insert";
    case MESSAGE_TYPE.update:
      return "update";
    case MESSAGE_TYPE.delete:
      return "delete";
    default:
      return "truncate";
  }
}
