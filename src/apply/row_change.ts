/**
 * Changes of one row as values, every one of them as text.
 */
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Delete, Insert, Tuple, Update } from "../pgoutput/message.ts";
import { textTuple } from "../pgoutput/text_form.ts";
import type { TargetRelation } from "./target_relation.ts";

/** A change of one row. */
export type RowChange = Insert | Update | Delete;

/** Decodes a whole Insert, Update or Delete message of a target's relation. */
export function decodeChange({ map }: TargetRelation, message: Uint8Array): RowChange {
  const change = decodeMessage(message) as RowChange;
  const text = (tuple: Tuple) => textTuple(tuple, map.sentTypes);
  switch (change.kind) {
    case "insert":
      return { ...change, newTuple: text(change.newTuple) };
    case "update": {
      const { oldKey, oldTuple } = change;
      const newTuple = text(change.newTuple);
      if (oldKey !== undefined) return { ...change, oldKey: text(oldKey), newTuple };
      if (oldTuple !== undefined) return { ...change, oldTuple: text(oldTuple), newTuple };
      return { ...change, newTuple };
    }
    case "delete": {
      const { oldKey, oldTuple } = change;
      if (oldKey !== undefined) return { ...change, oldKey: text(oldKey) };
      return { ...change, oldTuple: text(oldTuple!) };
    }
  }
}
