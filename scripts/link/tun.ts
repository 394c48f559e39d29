/**
 * TUN devices of Linux by way of libc: network interfaces whose packets a program reads and writes.
 *
 * https://docs.kernel.org/networking/tuntap.html
 */

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  ppoll: { parameters: ["buffer", "u64", "buffer", "pointer"], result: "i32" },
});

/** From <fcntl.h>, <linux/if_tun.h> and <poll.h>, the same on x64 and arm64. */
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const TUNSETIFF = 0x400454ca;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const POLLIN = 1;

/** `struct ifreq`: 16 bytes of name, then the flags. */
const IFREQ_BYTES = 40;
const NAME_BYTES = 16;
/** `struct pollfd`: an int, two shorts. */
const POLLFD_BYTES = 8;

/** An open TUN device. */
export interface Tun {
  /** Its file descriptor. */
  readonly fd: number;
  /** Reads a packet into `into`; its length, or 0 if none waits. */
  read(into: Uint8Array<ArrayBuffer>): number;
  /** Hands a packet over; one that the kernel does not take is lost, as on any network. */
  write(packet: Uint8Array<ArrayBuffer>): void;
}

/** Makes a TUN device of this name, up to 15 bytes, in the present network namespace; it goes with the process. */
export function openTun(name: string): Tun {
  const fd = libc.open(cString("/dev/net/tun"), O_RDWR | O_NONBLOCK);
  if (fd < 0) throw new Error("Cannot open /dev/net/tun: root and the kernel's TUN driver are needed");
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(cString(name));
  new DataView(request.buffer).setUint16(NAME_BYTES, IFF_TUN | IFF_NO_PI, true);
  if (libc.ioctl(fd, BigInt(TUNSETIFF), request) < 0) throw new Error(`Cannot make the TUN device "${name}"`);
  return {
    fd,
    read: (into) => Math.max(0, libc.read(fd, into, BigInt(into.length))),
    write: (packet) => void libc.write(fd, packet, BigInt(packet.length)),
  };
}

/** Waits for a packet on any of the devices, at most so many milliseconds; blocks the whole thread. */
export function waitForPacket(tuns: readonly Tun[]): (timeoutMs: number) => void {
  const entries = new Uint8Array(tuns.length * POLLFD_BYTES);
  const view = new DataView(entries.buffer);
  tuns.forEach(({ fd }, index) => {
    view.setInt32(index * POLLFD_BYTES, fd, true);
    view.setInt16(index * POLLFD_BYTES + 4, POLLIN, true);
  });
  const timeout = new BigInt64Array(2);
  return (timeoutMs) => {
    const nanoseconds = BigInt(Math.max(0, Math.round(timeoutMs * 1e6)));
    timeout[0] = nanoseconds / 1_000_000_000n;
    timeout[1] = nanoseconds % 1_000_000_000n;
    libc.ppoll(entries, BigInt(tuns.length), new Uint8Array(timeout.buffer), null);
  };
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
