/**
 * Results as a picture: the ratio of every workload, and the lags of both rivals at each steady rate. Pure.
 */
import type { RivalResult, WorkloadResult } from "./results.ts";
import { document, line, rectangle, text } from "./svg.ts";

const WIDTH = 880;
/** Where the bars begin, and how far they may go; their numbers stand beyond. */
const LEFT = 180;
const RIGHT = 745;
const ROW = 26;
const BAR = 14;
/** Height of what stands over the bars of a panel, and of its axis below them. */
const HEAD = 74;
const AXIS = 52;
/** About this many steps on an axis. */
const STEPS = 6;

const AHEAD = "#1a7f5a";
const BEHIND = "#c4622d";
const BUILTIN = { p50: "#57606a", p99: "#c3c9d0" };
const MMLITE = { p50: "#1b62a8", p99: "#a9cbee" };
const GRID = 'stroke="#e4e8ec"';
const INK = 'stroke="#1f2328"';
const STYLE = "text{font:13px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}" +
  ".title{font-size:16px;font-weight:600}.soft{fill:#57606a}.number{font-variant-numeric:tabular-nums}";

/** Draws the results; the table has the numbers, and the machine that they are of. */
export function plotResults(results: readonly WorkloadResult[]): string {
  const ratios = ratioPanel(results);
  const lags = results.filter(({ mmlite }) => mmlite.p50 !== undefined);
  const lower = lags.length ? lagPanel(lags, ratios.bottom) : { shapes: [], bottom: ratios.bottom };
  return document(
    {
      width: WIDTH,
      height: lower.bottom,
      style: STYLE,
      title: "mmlite beside the subscription that is built into PostgreSQL",
    },
    [...ratios.shapes, ...lower.shapes],
  );
}

/** A part of the picture, and where the next may begin. */
interface Panel {
  readonly shapes: readonly string[];
  readonly bottom: number;
}

function ratioPanel(results: readonly WorkloadResult[]): Panel {
  const top = HEAD;
  const bottom = top + results.length * ROW;
  const axis = axisTo(Math.max(1, ...results.map(({ spread }) => spread.max)));
  const one = axis.at(1);
  return {
    shapes: [
      text([24, 26], "mmlite compared with the built-in subscription", { style: "title" }),
      text([24, 47], "more than 1: mmlite is faster; bar: median of the pairs, whisker: their spread", {
        style: "soft",
      }),
      ...grid(axis, { top, bottom, title: "ratio, mmlite to built-in (rates, or the inverse of p99 lags)" }),
      ...results.flatMap((result, index) => ratioRow(result, { axis, middle: top + (index + 0.5) * ROW })),
      line([one, top - 6], [one, bottom], `${INK} stroke-width="1.5"`),
    ],
    bottom: bottom + AXIS,
  };
}

function ratioRow(
  { workload, ratio, spread, mmlite }: WorkloadResult,
  { axis, middle }: { axis: Axis; middle: number },
): string[] {
  const [low, high] = [axis.at(spread.min), axis.at(spread.max)];
  const tick = (x: number) => line([x, middle - 4], [x, middle + 4], INK);
  const bar = { x: LEFT, y: middle - BAR / 2, width: axis.at(ratio) - LEFT, height: BAR };
  return [
    text([LEFT - 12, middle], mmlite.p50 === undefined ? workload : `${workload} p99`, { anchor: "end" }),
    rectangle(bar, ratio >= 1 ? AHEAD : BEHIND, 'rx="2"'),
    ...(high > low ? [line([low, middle], [high, middle], INK), tick(low), tick(high)] : []),
    text([RIGHT + 16, middle], ratio.toFixed(2), { style: "number" }),
  ];
}

function lagPanel(results: readonly WorkloadResult[], above: number): Panel {
  const top = above + HEAD;
  // Two bars for each rate, and half a row between two rates.
  const bottom = top + results.length * 2.5 * ROW - ROW / 2;
  const axis = axisTo(Math.max(...results.flatMap(({ builtin, mmlite }) => [builtin.p99!, mmlite.p99!])));
  const shapes = results.flatMap(({ workload, builtin, mmlite }, index) => {
    const y = top + index * 2.5 * ROW;
    const rate = workload.slice(workload.lastIndexOf("-") + 1);
    return [
      text([LEFT - 82, y + ROW], `${rate} tx/s`, { anchor: "end" }),
      ...lagRow("built-in", builtin, { axis, middle: y + ROW / 2, colours: BUILTIN }),
      ...lagRow("mmlite", mmlite, { axis, middle: y + 1.5 * ROW, colours: MMLITE }),
    ];
  });
  return {
    shapes: [
      text([24, above + 26], "Lag of small transactions at a steady rate", { style: "title" }),
      text([24, above + 47], "from commit to being applied; dark: p50, light: on to p99", { style: "soft" }),
      ...grid(axis, { top, bottom, title: "milliseconds" }),
      ...shapes,
    ],
    bottom: bottom + AXIS,
  };
}

function lagRow(
  name: string,
  { p50, p99 }: RivalResult,
  { axis, middle, colours }: { axis: Axis; middle: number; colours: typeof MMLITE },
): string[] {
  const bar = (to: number) => ({ x: LEFT, y: middle - BAR / 2, width: axis.at(to) - LEFT, height: BAR });
  return [
    text([LEFT - 12, middle], name, { anchor: "end", style: "soft" }),
    rectangle(bar(p99!), colours.p99, 'rx="2"'),
    rectangle(bar(p50!), colours.p50, 'rx="2"'),
    text([RIGHT + 16, middle], `${p50!.toFixed(1)} / ${p99!.toFixed(1)} ms`, { style: "number" }),
  ];
}

/** A scale from 0 on. */
interface Axis {
  readonly ticks: readonly number[];
  at(value: number): number;
}

/** As far as `highest`, in steps of 1, 2 or 5 and noughts. */
function axisTo(highest: number): Axis {
  const rough = highest / STEPS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough)!;
  const count = Math.ceil(highest / step);
  return {
    ticks: Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(6))),
    at: (value) => LEFT + (value / (count * step)) * (RIGHT - LEFT),
  };
}

function grid(
  axis: Axis,
  { top, bottom, title }: { top: number; bottom: number; title: string },
): string[] {
  return [
    ...axis.ticks.flatMap((tick) => [
      line([axis.at(tick), top - 2], [axis.at(tick), bottom + 4], GRID),
      text([axis.at(tick), bottom + 14], String(tick), { anchor: "middle", style: "soft" }),
    ]),
    text([(LEFT + RIGHT) / 2, bottom + 34], title, { anchor: "middle", style: "soft" }),
  ];
}
