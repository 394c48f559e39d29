import assert from "node:assert/strict";
import { join } from "node:path";
import { configureLog } from "../log.ts";
import { serviceManager } from "./notify.ts";

/** A program `systemd-notify` that writes down what it is told, slower the first time, and fails with `exitCode`. */
async function withProgram(
  exitCode: number,
  test: (options: { env: Record<string, string>; told: () => Promise<string[]> }) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "mmlite-notify-" });
  try {
    const heard = join(directory, "heard");
    const script = `#!/bin/sh
[ -e "${heard}" ] || sleep 0.2
for word; do printf '%s|' "$word"; done >>"${heard}"
env | grep -c SECRET >>"${heard}"
exit ${exitCode}
`;
    await Deno.writeTextFile(join(directory, "systemd-notify"), script, { mode: 0o755 });
    const env = { PATH: `${directory}:${Deno.env.get("PATH")}`, NOTIFY_SOCKET: "/run/any", SECRET: "x" };
    const told = async () => (await Deno.readTextFile(heard).catch(() => "")).split("\n").filter(Boolean);
    await test({ env, told });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("systemd hears of each state in order, and no secret reaches the program that says it", () =>
  withProgram(0, async ({ env, told }) => {
    const service = serviceManager(env);
    void service.ready("Node a listens");
    void service.reloading();
    void service.ready("Node a listens");
    await service.stopping();
    const lines = await told();
    assert.deepEqual(lines.map((line) => line.split("|")[0]), [
      "READY=1",
      "RELOADING=1",
      "READY=1",
      "STOPPING=1",
    ]);
    assert.equal(lines[0], "READY=1|STATUS=Node a listens|0");
  }));

Deno.test("nothing runs where no service manager asks", () =>
  withProgram(0, async ({ env: { PATH }, told }) => {
    const service = serviceManager({ PATH });
    await service.ready("Node a listens");
    await service.stopping();
    assert.deepEqual(await told(), []);
  }));

Deno.test("a program that fails or is not there stops nothing", async () => {
  await configureLog({ level: "error", format: "text" });
  await withProgram(1, async ({ env, told }) => {
    const service = serviceManager(env);
    await service.ready("Node a listens");
    await service.stopping();
    assert.equal((await told()).length, 2);
  });
  await serviceManager({ PATH: "/nowhere", NOTIFY_SOCKET: "/run/any" }).ready("Node a listens");
});
