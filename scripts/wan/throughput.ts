/**
 * How fast a backlog crosses a link, with mmlite's compressions and with the built-in subscription.
 */
import { type Bed, openBed } from "../bench/bed.ts";
import { builtinRival } from "../bench/builtin.ts";
import { type CatchUp, catchUp } from "../bench/catch_up.ts";
import type { Rival, RivalName } from "../bench/rival.ts";
import { SENDER, sidecarRival, startSender } from "../bench/sidecars.ts";
import { BACKLOGS } from "../bench/workloads.ts";
import { type LinkShape, openNetwork } from "../link/network.ts";
import { median } from "../statistics.ts";
import { type Authority, openAuthority } from "../certificates.ts";

/** Those that run, in the order in which they take turns; mmlite's receiver says how it wants it compressed. */
export const RIVALS: readonly RivalName[] = ["builtin", "mmlite_off", "mmlite_zstd", "mmlite_gzip"];

/** Transactions of two changes each: `pgbench -N`. */
const WORKLOAD = "oltp-n";

/** What is run over a link. */
export interface Crossing {
  readonly shape: LinkShape;
  /** Share of the workload's 100,000 transactions. */
  readonly size: number;
  readonly pairs: number;
}

/** One rival's runs. */
export interface CrossingResult {
  readonly rival: RivalName;
  /** Changes applied in a second, in the middle and at the extremes. */
  readonly rate: number;
  readonly lowest: number;
  readonly highest: number;
  /** The middle one of the ratios to the built-in subscription, pair by pair. */
  readonly ratio: number;
  /** Of the mmlite processes, the middle run's, both. */
  readonly processorSeconds: number;
  readonly equal: boolean;
}

/** Runs every rival in turn over one link. */
export async function cross(
  { shape, size, pairs }: Crossing,
  onRun: (run: CatchUp) => void,
): Promise<CrossingResult[]> {
  await using stack = new AsyncDisposableStack();
  const network = stack.use(await openNetwork());
  const [here, there] = [await network.addSite("here"), await network.addSite("there")];
  const { addresses } = await network.join(here, there, shape);
  const bed = await openBed(stack, [here, there]);
  const places = {
    here: { enter: here.enter, host: addresses[0] },
    there: { enter: there.enter, host: addresses[1] },
  };
  const authority = await openAuthority(stack);
  const runs = await catchUp(bed, {
    backlog: BACKLOGS[WORKLOAD](size),
    pairs,
    startRivals: (stack) => startRivals(bed, { stack, places, authority }),
    onRun,
  });
  return RIVALS.map((rival) => summarise(rival, runs));
}

type Places = Readonly<
  Record<"here" | "there", { readonly enter: readonly string[]; readonly host: string }>
>;

async function startRivals(
  bed: Bed,
  { stack, places, authority }: { stack: AsyncDisposableStack; places: Places; authority: Authority },
): Promise<Rival[]> {
  const sender = await startSender(bed, stack, { ...places.here, tls: await authority.issue(SENDER) });
  const sidecars = (compression: "off" | "zstd" | "gzip") =>
    sidecarRival(sender, {
      name: `mmlite_${compression}`,
      placeOf: async ({ name }) => ({
        ...places.there,
        tls: await authority.issue(name),
        extraArgs: ["--compression", compression],
      }),
    });
  return [
    builtinRival({ unixSocket: false, host: places.here.host }),
    sidecars("off"),
    sidecars("zstd"),
    sidecars("gzip"),
  ];
}

function summarise(rival: RivalName, runs: readonly CatchUp[]): CrossingResult {
  const own = runs.filter((run) => run.rival === rival);
  const rates = own.map(({ rate }) => rate);
  const ratios = own.map(({ rate, pair }) =>
    rate / runs.find((run) => run.rival === "builtin" && run.pair === pair)!.rate
  );
  return {
    rival,
    rate: median(rates),
    lowest: Math.min(...rates),
    highest: Math.max(...rates),
    ratio: median(ratios),
    processorSeconds: median(own.map(({ processorTime: { sender = 0, receiver = 0 } }) => sender + receiver)),
    equal: own.every(({ equal }) => equal),
  };
}
