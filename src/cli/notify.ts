/**
 * What systemd is told about this process where the unit is of `Type=notify`
 * (https://www.freedesktop.org/software/systemd/man/sd_notify.html).
 *
 * Neither runtime sends datagrams over unix sockets, so systemd's own program `systemd-notify` does. Without
 * NOTIFY_SOCKET in the environment nothing is said and nothing runs.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Environment } from "../config/environment.ts";
import { log } from "../log.ts";

const PROGRAM = "systemd-notify";
/** Time allowed for saying something, milliseconds; it takes ten as a rule. */
const NOTIFY_TIMEOUT_MS = 5_000;

/** Whoever started this process and waits to hear of it. Nothing here rejects. */
export interface ServiceManager {
  /** The work has begun, or goes on after a reload; `status` is one line for `systemctl status`. */
  ready(status: string): Promise<void>;
  /** Certificates are being read again; `ready` follows. */
  reloading(): Promise<void>;
  /** The end has begun. */
  stopping(): Promise<void>;
}

/** The service manager that the environment names; nobody hears anything where it names none. */
export function serviceManager(env: Environment): ServiceManager {
  const socket = env.NOTIFY_SOCKET;
  let last = Promise.resolve();
  const tell = (...assignments: string[]) => {
    // One after the other: systemd takes the last word for the present state.
    if (socket) last = last.then(() => notify(assignments, { PATH: env.PATH, NOTIFY_SOCKET: socket }));
    return last;
  };
  return {
    ready: (status) => tell("READY=1", `STATUS=${status}`),
    reloading: () => tell("RELOADING=1", "STATUS=Reads its certificates again"),
    stopping: () => tell("STOPPING=1", "STATUS=Ends its links and sessions"),
  };
}

async function notify(assignments: string[], env: NodeJS.ProcessEnv): Promise<void> {
  try {
    await promisify(execFile)(PROGRAM, assignments, { env, timeout: NOTIFY_TIMEOUT_MS });
  } catch (thrown) {
    const { code, message } = thrown as { code?: string | number; message: string };
    log("systemd").warn("Cannot tell systemd {what}: {reason}; {hint}", {
      what: assignments[0],
      reason: code === "ENOENT" ? `there is no program ${PROGRAM}` : message.split("\n")[0],
      hint: "Set Type=exec in the unit where systemd-notify cannot be had",
    });
  }
}
