/**
 * Peers as a table, for `peers list` and `status`.
 */
import type { PeerStatus } from "../api/schemas.ts";
import { type Cell, type Colour, formatTable, heading } from "./output.ts";

type State = PeerStatus["state"] | PeerStatus["inbound"]["state"];

const STATE_COLOURS: Readonly<Record<State, Colour>> = {
  connecting: "yellow",
  copying: "yellow",
  catchup: "yellow",
  streaming: "green",
  backoff: "yellow",
  paused: "yellow",
  blocked: "red",
  fenced: "red",
  disconnected: "yellow",
  waiting: "yellow",
};

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** One line a peer below a heading, and below the table the last error of each direction that does not flow, and what is awaited. */
export function formatPeers(peers: readonly PeerStatus[], colour: boolean): string {
  if (peers.length === 0) return "no peers";
  const title = heading("PEER", "STATE", "SENT", "ACKED", "BEHIND", "LAG", "INBOUND", "URL");
  const table = formatTable([title, ...peers.map(peerRow)], colour);
  return [table, ...peers.flatMap(errorLines), ...peers.flatMap(awaitedLines)].join("\n");
}

/** Whether an operator has to do something about a peer, in either direction. */
export function needsOperator({ state, inbound }: PeerStatus): boolean {
  return [state, inbound.state].some((one) => one === "blocked" || one === "fenced");
}

/** An amount of bytes for people, such as `1.5 MiB`; `-` for what is not known. */
export function formatBytes(digits: string | null): string {
  if (digits === null) return "-";
  let amount = Number(digits);
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < BYTE_UNITS.length - 1) {
    amount /= 1024;
    unit++;
  }
  return `${unit === 0 ? amount : amount.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** Seconds for people, such as `0.3 s`; `-` for what is not known. */
export function formatSeconds(seconds: number | null): string {
  return seconds === null ? "-" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}

function peerRow(peer: PeerStatus): (Cell | string)[] {
  return [
    peer.name,
    stateCell(peer.state, peer.removing ? " (removing)" : peer.awaits_dial ? " (it has to dial)" : ""),
    peer.sent_lsn ?? "-",
    peer.acked_lsn ?? "-",
    formatBytes(peer.lag_bytes),
    formatSeconds(peer.lag_seconds),
    stateCell(peer.inbound.state),
    peer.url ?? "-",
  ];
}

function stateCell(state: State, suffix = ""): Cell {
  return { text: `${state}${suffix}`, colour: STATE_COLOURS[state] };
}

/** A link that was stopped, or whose rows are copied first, has no trouble; one that flows has none any more, though its last error is on record. */
const UNTROUBLED: readonly State[] = ["copying", "catchup", "streaming", "paused", "waiting"];

/** Rows that await values do so for a moment only, unless the peer cannot be asked. */
function awaitedLines({ name, inbound: { awaited_rows } }: PeerStatus): string[] {
  if (!awaited_rows) return [];
  return [
    awaited_rows === 1
      ? `from ${name}: 1 row awaits values of it`
      : `from ${name}: ${awaited_rows} rows await values of it`,
  ];
}

function errorLines({ name, state, awaits_dial, last_error, inbound }: PeerStatus): string[] {
  if (awaits_dial) {
    return [
      `to ${name}: what is written here waits until ${name} dials this node`,
      "  hint: Check that mmlite runs there, and that it can reach this node",
    ];
  }
  return [
    ...(last_error === null || UNTROUBLED.includes(state)
      ? []
      : [`to ${name}: ${last_error.message}`, `  hint: ${last_error.hint}`]),
    ...(inbound.last_error === null || UNTROUBLED.includes(inbound.state)
      ? []
      : [`from ${name}: ${inbound.last_error.message}`, `  hint: ${inbound.last_error.hint}`]),
  ];
}
