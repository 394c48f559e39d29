/**
 * The settings of commands that are no clients of the control API: what each of them begins with.
 */
import { type LoadedSettings, loadSettings } from "../config.ts";
import { MmliteError } from "../errors.ts";
import { type Context, flagsOf, type GlobalOptions } from "./context.ts";

/** Reads the settings and says their warnings; throws `usage` for `--as-curl`, and what `loadSettings` throws. */
export async function loadLocalSettings(
  command: string,
  { options, context }: { readonly options: GlobalOptions; readonly context: Context },
): Promise<LoadedSettings> {
  if (options.asCurl) {
    throw new MmliteError(
      "usage",
      `Cannot print \`mmlite ${command}\` as curl: it is no call of the control API`,
    );
  }
  const loaded = await loadSettings({ flags: flagsOf(options), env: context.env, file: options.config });
  if (!options.quiet) { for (const warning of loaded.warnings) context.note(`warning: ${warning}`); }
  return loaded;
}
