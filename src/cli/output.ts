/**
 * Printing data: tables for people, JSON and YAML for programs.
 */
import { stringify } from "yaml";
import { toPrintable } from "../printable.ts";
import type { OutputFormat } from "./context.ts";

/** One cell: text, and its colour on a terminal that shows colour. */
export interface Cell {
  readonly text: string;
  readonly colour?: Colour;
}

/** The colours of states. */
export type Colour = "green" | "yellow" | "red" | "bold";

const ESCAPES: Readonly<Record<Colour, string>> = {
  green: "\x1b[32m",
  yellow: "\x1b[33m",
  red: "\x1b[31m",
  bold: "\x1b[1m",
};
const RESET = "\x1b[0m";
const COLUMN_GAP = "  ";

/** Data as JSON or YAML, without a final line end. */
export function formatData(value: unknown, format: Exclude<OutputFormat, "table">): string {
  return format === "json" ? JSON.stringify(value, null, 2) : stringify(value, { lineWidth: 0 }).trimEnd();
}

/** Rows in columns as wide as their widest cell; no line ends in spaces. */
export function formatTable(rows: readonly (readonly (Cell | string)[])[], colour: boolean): string {
  const cells = rows.map((row) => row.map(toCell));
  const widths: number[] = [];
  for (const row of cells) {
    row.forEach(({ text }, column) => widths[column] = Math.max(widths[column] ?? 0, text.length));
  }
  return cells.map((row) => {
    const last = row.findLastIndex(({ text }) => text !== "");
    return row.slice(0, last + 1)
      .map((cell, column) =>
        paint(cell, colour) + padding(column === last ? 0 : widths[column] - cell.text.length)
      )
      .join(COLUMN_GAP);
  }).join("\n");
}

/** A heading row. */
export function heading(...titles: string[]): Cell[] {
  return titles.map((text) => ({ text, colour: "bold" }));
}

/** A cell's text, coloured where it has a colour and the terminal shows it. */
export function paint({ text, colour }: Cell, colourful: boolean): string {
  return colour === undefined || !colourful ? text : `${ESCAPES[colour]}${text}${RESET}`;
}

function toCell(cell: Cell | string): Cell {
  return typeof cell === "string" ? { text: toPrintable(cell) } : { ...cell, text: toPrintable(cell.text) };
}

function padding(length: number): string {
  return " ".repeat(length);
}
