/**
 * Programs that compiling is made of.
 */

/** Standard output of a command; throws with its standard error if it fails or does not exist. */
export async function output(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], env }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${command} ${args[0]} failed: ${text.decode(stderr).trim()}`);
  return text.decode(stdout);
}
