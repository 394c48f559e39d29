/**
 * Taking an address or a unix socket for the control API, and saying what to do when it cannot be had.
 */
import { once } from "node:events";
import { chmod, lstat, unlink } from "node:fs/promises";
import type { Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { type Address, formatAddress } from "../config/address.ts";
import { MmliteError } from "../errors.ts";

/** Listens on TCP and resolves to the address with the port in use; throws `config` if it cannot be had. */
export async function listenOnTcp(server: Server, { host, port }: Address): Promise<Address> {
  server.listen({ host, port });
  await listening(server, formatAddress({ host, port }), TCP_FAULTS);
  return { host, port: (server.address() as AddressInfo).port };
}

/**
 * Listens on a unix socket with the mode given. The socket of a dead process is replaced; throws `config` if a
 * process listens there, the path is another file, or cannot be had.
 */
export async function listenOnUnix(server: Server, options: { path: string; mode: number }): Promise<void> {
  await removeStaleSocket(options.path);
  server.listen({ path: options.path });
  await listening(server, options.path, UNIX_FAULTS);
  await chmod(options.path, options.mode);
}

/** Resolves once the server listens; throws `config` with a remedy if it cannot. */
async function listening(server: Server, where: string, faults: ListenFaults): Promise<void> {
  try {
    await once(server, "listening");
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    const [why, hint] = faults[code] ?? [code || (error as Error).message, undefined];
    throw new MmliteError("config", `Cannot serve the control API on "${where}": ${why}`, {
      hint,
      cause: error,
    });
  }
}

type ListenFaults = Readonly<Record<string, readonly [why: string, hint: string]>>;

const NOT_OUR_ADDRESS = [
  "this machine does not have that address",
  "Choose one of this machine's addresses with listen.api.address (--api)",
] as const;

const TCP_FAULTS: ListenFaults = {
  EADDRINUSE: [
    "it is in use by another process",
    "Stop that process, or choose another address with listen.api.address (--api)",
  ],
  EADDRNOTAVAIL: NOT_OUR_ADDRESS,
  // What Deno says for the same.
  EINVAL: NOT_OUR_ADDRESS,
  ENOTFOUND: ["there is no such host", NOT_OUR_ADDRESS[1]],
  EACCES: ["permission denied", "Choose a port above 1023 with listen.api.address (--api)"],
};

const UNIX_FAULTS: ListenFaults = {
  EADDRINUSE: [
    "it is in use by another process",
    "Stop that process, or choose another path with listen.api.socket (--api-socket)",
  ],
  ENOENT: [
    "its directory does not exist",
    "Create the directory, or choose another path with listen.api.socket (--api-socket)",
  ],
  EACCES: [
    "permission denied",
    "Let this user write to the directory, or choose another path with listen.api.socket (--api-socket)",
  ],
  EINVAL: [
    "the path is too long for a socket",
    "Choose a path of at most 107 bytes with listen.api.socket (--api-socket)",
  ],
};

/** Removes the socket of a dead process; throws `config` if the file is something else or a process listens. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new MmliteError("config", `Cannot serve the control API on "${path}": it is not a socket`, {
      hint: "Remove the file, or choose another path with listen.api.socket (--api-socket)",
    });
  }
  if (await isAnswered(path)) {
    throw new MmliteError(
      "config",
      `Cannot serve the control API on "${path}": another process listens there`,
      {
        hint: "Stop that process, or choose another path with listen.api.socket (--api-socket)",
      },
    );
  }
  await unlink(path);
}

/** Whether a process listens on a unix socket; one that may not be asked counts as listening. */
async function isAnswered(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ECONNREFUSED";
  } finally {
    socket.destroy();
  }
}
