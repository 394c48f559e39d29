/**
 * Text that others wrote, such as a peer's error, on its way to a terminal.
 */

// Controls, C0 and C1, line ends among them; and what turns the direction of writing around.
// deno-lint-ignore no-control-regex
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The text in one line, with a space for whatever a terminal would obey instead of showing it. */
export function toPrintable(text: string): string {
  return text.replace(UNPRINTABLE, " ");
}
