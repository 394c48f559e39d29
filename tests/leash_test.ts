/** Started servers end with the process that started them, in whatever way that ends. */
import assert from "node:assert/strict";
import { eventually } from "./support/poll.ts";
import { running } from "./support/processes.ts";

const SUPPORT = new URL("./support/postgres.ts", import.meta.url);

for (const signal of ["SIGKILL", "SIGTERM", "SIGINT"] as const) {
  Deno.test(`a server ends and its directory goes when ${signal} ends its owner`, async () => {
    const script = `
      import { startPostgres } from "${SUPPORT}";
      const server = await startPostgres({ major: 18 });
      console.log(server.pid + " " + server.host);
      Deno.kill(Deno.pid, "${signal}");
      setInterval(() => {}, 1000);
    `;
    const output = await new Deno.Command(Deno.execPath(), { args: ["eval", "--ext=ts", script] }).output();
    assert.equal(output.signal, signal);
    const [pid, directory] = new TextDecoder().decode(output.stdout).trim().split(" ");
    await eventually("the server to end", async () => (await running([Number(pid)])).length === 0);
    await eventually("the directory to go", () => Deno.stat(directory).then(() => false, () => true));
  });
}
