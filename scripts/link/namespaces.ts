/**
 * Whether this machine can make network namespaces, and the programs by which they are made.
 */

/** Why network namespaces cannot be made here; undefined if they can. */
export async function namespaceProblem(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "network namespaces are a thing of Linux";
  if (Deno.uid() !== 0) return "making network namespaces needs root";
  if (!await succeeds("ip", "-V")) return "the program ip is missing (Debian: iproute2)";
  return await succeeds("unshare", "--net", "true") ? undefined : "root may not make network namespaces here";
}

/** Runs a program; throws with its standard error if it fails. */
export async function run(...[program, ...args]: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  if (success) return;
  throw new Error(`Cannot run ${[program, ...args].join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
}

async function succeeds(program: string, ...args: string[]): Promise<boolean> {
  const command = new Deno.Command(program, { args, stdout: "null", stderr: "null" });
  return (await command.output().catch(() => undefined))?.success ?? false;
}
