/**
 * What this program calls itself.
 */

/** The version of `deno.json`; a test keeps the two equal. */
export const VERSION = "0.1.0";
