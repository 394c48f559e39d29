/**
 * How the demo shows what happens: a table that redraws itself on a terminal, plain lines anywhere else.
 */
import { TABLES } from "./demo_workload.ts";
import { formatTable } from "./text_table.ts";

/** One node at one moment. */
export interface NodeSample {
  readonly name: string;
  readonly postgres: string;
  /** Rows of each table; undefined if the database did not answer. */
  readonly rows: readonly number[] | undefined;
  /** Transactions that this node's writer committed so far. */
  readonly written: number;
  /** Transactions of other nodes applied here so far. */
  readonly applied: number;
  readonly links: readonly LinkSample[];
}

/** One outgoing link at one moment. */
export interface LinkSample {
  readonly peer: string;
  readonly state: string;
  /** Seconds from commit to acknowledgement; undefined while nothing is known. */
  readonly lagSeconds: number | undefined;
  readonly sentTransactions: number;
  readonly problem: string | undefined;
}

/** All nodes at one moment. */
export interface Sample {
  /** Seconds since the writers began. */
  readonly seconds: number;
  readonly nodes: readonly NodeSample[];
}

/** The lines of the live table: the nodes, then the links. `earlier` gives the rates. */
export function formatSample(sample: Sample, earlier: Sample): string[] {
  const elapsed = Math.max(sample.seconds - earlier.seconds, 0.001);
  const rate = (now: number, before: number) => ((now - before) / elapsed).toFixed(0);
  const nodes = sample.nodes.map((node, index) => [
    node.name,
    node.postgres,
    ...TABLES.map((_, table) => node.rows ? String(node.rows[table]) : "?"),
    rate(node.written, earlier.nodes[index].written),
    rate(node.applied, earlier.nodes[index].applied),
  ]);
  const links = sample.nodes.flatMap((node) =>
    node.links.map((link) => [
      `${node.name} -> ${link.peer}`,
      link.state,
      formatLag(link.lagSeconds),
      String(link.sentTransactions),
    ])
  );
  const problems = sample.nodes.flatMap((node) =>
    node.links.flatMap((link) => link.problem ? [`${node.name} -> ${link.peer}: ${link.problem}`] : [])
  );
  return [
    ...formatTable([["node", "PostgreSQL", ...TABLES, "written/s", "applied/s"], ...nodes]),
    "",
    ...formatTable([["link", "state", "lag", "sent"], ...links]),
    ...problems,
  ];
}

/** One sample on one line. */
export function formatSampleLine(sample: Sample, earlier: Sample): string {
  const elapsed = Math.max(sample.seconds - earlier.seconds, 0.001);
  const total = (of: Sample, key: "written" | "applied") =>
    of.nodes.reduce((sum, node) => sum + node[key], 0);
  const rate = (key: "written" | "applied") =>
    ((total(sample, key) - total(earlier, key)) / elapsed).toFixed(0);
  const rows = sample.nodes.map((node) => `${node.name} ${node.rows?.join("/") ?? "?"}`).join(", ");
  const links = sample.nodes.flatMap((node) => node.links);
  const lags = links.map((link) => link.lagSeconds).filter((lag) => lag !== undefined);
  const states = Map.groupBy(links, (link) => link.state);
  return [
    `${sample.seconds.toFixed(0)} s`,
    `rows ${rows}`,
    `written ${rate("written")}/s`,
    `applied ${rate("applied")}/s`,
    `lag ${formatLag(lags.length ? Math.max(...lags) : undefined)}`,
    [...states].map(([state, members]) => `${members.length} ${state}`).join(", "),
  ].join(" | ");
}

function formatLag(seconds: number | undefined): string {
  if (seconds === undefined) return "-";
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

/** Shows samples on standard output, in place if it is a terminal. */
export class LiveView {
  readonly #isTerminal = Deno.stdout.isTerminal();
  #linesDrawn = 0;
  #earlier: Sample | undefined;

  show(sample: Sample): void {
    const earlier = this.#earlier ?? sample;
    this.#earlier = sample;
    if (!this.#isTerminal) return console.log(formatSampleLine(sample, earlier));
    const { columns } = Deno.consoleSize();
    const lines = formatSample(sample, earlier).map((line) => line.slice(0, columns || undefined));
    // Up to where the last table began, and clear from there to the end of the screen.
    const back = this.#linesDrawn ? `\x1b[${this.#linesDrawn}A\x1b[J` : "";
    console.log(back + lines.join("\n"));
    this.#linesDrawn = lines.length;
  }
}
