/**
 * `deno task wan [--quick] [--pairs N] [--only crossing|two-links]`: mmlite over long and lossy links, beside the
 * subscription that is built into PostgreSQL. Needs root, for network namespaces; `scripts/link/` emulates the links.
 *
 * Every site has its own namespace. mmlite speaks TLS, the subscription cleartext. TCP is Linux's cubic, to which a
 * lost packet is a sign of congestion, and then bbr, to which it is none. `--quick` takes some minutes, the whole
 * half an hour. The last line is one sentence; the exit code is 1 if a receiver did not hold what was sent.
 */
import process from "node:process";
import type { CatchUp } from "./bench/catch_up.ts";
import { describeMachine } from "./bench/report.ts";
import { type LinkShape, networkProblem } from "./link/network.ts";
import { readOptions, refuseOptions, wholeNumber } from "./options.ts";
import { median } from "./statistics.ts";
import { formatTable } from "./text_table.ts";
import { cross, type CrossingResult } from "./wan/throughput.ts";
import { type Phase, runTwoLinks, type TwoLinks, type Writing } from "./wan/two_links.ts";

/** The link that backlogs cross, and the share of 100,000 transactions that does, as much as takes it a minute. */
const CUBIC: LinkShape = { roundTripMs: 100, loss: 0.01, congestion: "cubic" };
const BBR: LinkShape = { ...CUBIC, congestion: "bbr" };

/** How much is run. */
interface Extent {
  readonly pairs: number;
  readonly crossings: readonly { readonly shape: LinkShape; readonly size: number }[];
  readonly writing: Writing;
}

const WHOLE: Extent = {
  pairs: 5,
  crossings: [{ shape: CUBIC, size: 0.3 }, { shape: BBR, size: 0.5 }],
  writing: { rate: 600, seconds: 20, pairs: 3 },
};
const QUICK: Extent = {
  pairs: 1,
  crossings: [{ shape: CUBIC, size: 0.1 }],
  writing: { rate: 600, seconds: 10, pairs: 1 },
};

const CROSSING = "crossing";
const TWO_LINKS = "two-links";

async function runCrossings({ crossings, pairs }: Extent): Promise<CrossingResult[][]> {
  const results: CrossingResult[][] = [];
  for (const { shape, size } of crossings) {
    const onRun = ({ rival, rate }: CatchUp) =>
      progress(describe(shape), rival, `${rate.toFixed(0)} changes/s`);
    results.push(await cross({ shape, size, pairs }, onRun));
    console.log(`\n${describe(shape)}:`);
    console.log(formatTable(crossingRows(results.at(-1)!)).join("\n") + "\n");
  }
  return results;
}

function describe({ roundTripMs, loss = 0, congestion }: LinkShape): string {
  return `${roundTripMs} ms, ${loss * 100} % loss, ${congestion}`;
}

function crossingRows(results: readonly CrossingResult[]): string[][] {
  const head = ["backlog", "changes/s", "spread", "ratio to built-in", "processor s", "rows"];
  return [
    head,
    ...results.map(({ rival, rate, lowest, highest, ratio, processorSeconds, equal }) => [
      rival,
      rate.toFixed(0),
      `${lowest.toFixed(0)}..${highest.toFixed(0)}`,
      ratio.toFixed(2),
      rival === "builtin" ? "-" : processorSeconds.toFixed(2),
      equal ? "equal" : "DIFFER",
    ]),
  ];
}

async function runPhases({ writing }: Extent): Promise<TwoLinks> {
  const outcome = await runTwoLinks(writing, (phase) => {
    progress(TWO_LINKS, `far ${phase.far}`, `p50 ${phase.p50.toFixed(1)} ms, p99 ${phase.p99.toFixed(1)} ms`);
  });
  console.log("\nTo a peer at 10 ms and 100 Mbit/s, beside one at 300 ms, 1 Mbit/s and 2 % loss:");
  console.log(formatTable(phaseRows(outcome.phases)).join("\n") + "\n");
  return outcome;
}

function phaseRows(phases: readonly Phase[]): string[][] {
  const head = ["far peer", "tx/s", "p50 ms", "p99 ms", "far behind MB"];
  return [
    head,
    ...phases.map(({ far, achievedRate, p50, p99, farBehind }) => [
      far,
      achievedRate.toFixed(0),
      p50.toFixed(1),
      p99.toFixed(1),
      (farBehind / 1e6).toFixed(1),
    ]),
  ];
}

function progress(what: string, who: string, measured: string): void {
  console.error(`${what.padEnd(24)} ${who.padEnd(13)} ${measured}`);
}

function crossingSentence(results: readonly CrossingResult[]): string {
  const ratio = (name: string) => results.find(({ rival }) => rival === name)!.ratio.toFixed(1);
  return `mmlite crossed a link of 100 ms and 1 % loss ${
    ratio("mmlite_zstd")
  } times as fast as the built-in ` +
    `subscription with zstd, ${ratio("mmlite_gzip")} with gzip and ${
      ratio("mmlite_off")
    } without compression`;
}

function phasesSentence({ phases, caughtUpAfter }: TwoLinks): string {
  const middle = (far: Phase["far"], pick: (phase: Phase) => number) =>
    median(phases.filter((phase) => phase.far === far).map(pick)).toFixed(1);
  const lags = (far: Phase["far"]) =>
    `p50 ${middle(far, ({ p50 }) => p50)} and p99 ${middle(far, ({ p99 }) => p99)} ms`;
  return `a slow peer took the lag of a fast one from ${lags("away")} to ${lags("there")} ` +
    `and held everything ${caughtUpAfter.toFixed(0)} s after the last write`;
}

async function run(extent: Extent, only: string | undefined): Promise<number> {
  const { cores, processor, os, runtime, load_before } = describeMachine("18");
  console.log(`${cores} cores of ${processor}, ${os}, ${runtime}, load ${load_before.toFixed(1)}\n`);
  const crossings = only === TWO_LINKS ? [] : await runCrossings(extent);
  const links = only === CROSSING ? undefined : await runPhases(extent);
  const equal = crossings.flat().every((result) => result.equal) && (links?.equal ?? true);
  const said = [...crossings.slice(0, 1).map(crossingSentence), ...(links ? [phasesSentence(links)] : [])];
  const sentence = said.join("; ");
  console.log(
    equal ? `${sentence}; all rows were equal.` : `The databases differed in the end; ${sentence}.`,
  );
  return equal ? 0 : 1;
}

async function main(): Promise<number> {
  const values = readOptions(import.meta.url, {
    quick: { type: "boolean", default: false },
    pairs: { type: "string" },
    only: { type: "string" },
  });
  const extent = values.quick ? QUICK : WHOLE;
  const pairs = values.pairs === undefined ? extent.pairs : wholeNumber(values.pairs, "--pairs");
  if (values.only !== undefined && ![CROSSING, TWO_LINKS].includes(values.only)) {
    refuseOptions(`Cannot run "${values.only}" over links: there are ${CROSSING} and ${TWO_LINKS}`);
  }
  const problem = await networkProblem();
  if (problem !== undefined) {
    console.error(`Cannot run over links: ${problem}`);
    return 1;
  }
  return await run({ ...extent, pairs }, values.only);
}

process.exit(await main());
