/** Stacked bars over time, with uPlot. */

import uPlot from "uplot";
import { formatCount } from "./format";

const AXIS_PIXELS = 56;
const TIME_AXIS_PIXELS = 28;
const BAR_SHARE = 0.72;
const BAR_PIXELS_MAX = 48;
const ROUND = [1, 1.2, 1.6, 2, 2.5, 3, 4, 5, 6, 8] as const;
const DAY_SECONDS = 86_400;

/** The values of each series step by step; `times` are the beginnings of the steps, unix seconds. */
export interface BarData {
  times: number[];
  series: { name: string; values: number[] }[];
}

/** Running totals over the series, the whole first: each is drawn over the one before, so that what is seen of it is its own part. Pure. */
export function stacked(values: readonly (readonly number[])[]): number[][] {
  const totals: number[][] = [];
  for (const row of values) totals.push(row.map((value, step) => value + (totals.at(-1)?.[step] ?? 0)));
  return totals.reverse();
}

/** The chart in `frame`. `colours` are those of the series; `onStep` is told over which step the pointer is. */
export class BarChart {
  private readonly plot: uPlot;

  constructor(
    private readonly frame: HTMLElement,
    private readonly data: BarData,
    private readonly colours: (series: number) => string,
    private readonly onStep: (step: number | null) => void,
  ) {
    const rows = stacked(data.series.map(({ values }) => values));
    this.plot = new uPlot(this.options(), [data.times, ...rows], frame);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(frame);
    document.addEventListener("themechange", () => this.plot.redraw());
  }

  private size(): { width: number; height: number } {
    return { width: Math.max(1, this.frame.clientWidth), height: Math.max(1, this.frame.clientHeight) };
  }

  private get stepSeconds(): number {
    const [first = 0, second = DAY_SECONDS] = this.data.times;
    return second - first;
  }

  private options(): uPlot.Options {
    const half = this.stepSeconds / 2;
    return {
      ...this.size(),
      padding: [8, 4, 0, 0],
      legend: { show: false },
      cursor: { points: { show: false }, drag: { x: false, y: false }, y: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { range: (_plot, min, max) => [min - half, max + half] }, y: { range: (_plot, _min, max) => [0, roundCeiling(max)] } },
      axes: this.axes(),
      series: [{}, ...this.data.series.map((_series, index) => this.bar(this.data.series.length - 1 - index))],
      hooks: { setCursor: [(plot) => this.onStep(plot.cursor.idx ?? null)] },
    };
  }

  private bar(series: number): uPlot.Series {
    const paths = uPlot.paths.bars?.({ size: [BAR_SHARE, BAR_PIXELS_MAX] });
    const colour = (): string => this.colours(series);
    return { stroke: colour, fill: colour, width: 0, points: { show: false }, ...(paths ? { paths } : {}) };
  }

  private axes(): uPlot.Axis[] {
    const style = getComputedStyle(this.frame);
    const font = `11px ${style.fontFamily}`;
    const stroke = (): string => style.color;
    return [
      { size: TIME_AXIS_PIXELS, font, stroke, ticks: { show: false }, grid: { show: false }, space: 56, values: (_plot, splits) => splits.map((each) => stepLabel(each, this.stepSeconds)) },
      { size: AXIS_PIXELS, gap: 6, font, stroke, ticks: { show: false }, grid: { stroke: () => style.borderTopColor, width: 1 }, values: (_plot, splits) => splits.map(axisValue) },
    ];
  }
}

/** The next round number, little above the value; 1 for nothing. Pure. */
export function roundCeiling(value: number): number {
  if (!Number.isFinite(value) || value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = ROUND.find((each) => value <= each * power) ?? 10;
  return factor * power;
}

function axisValue(value: number): string {
  return Number.isInteger(value) || value >= 1 ? formatCount(value) : String(value);
}

/** `14:00` where steps are hours, `21 Nov` where they are days, both where they are in between; in UTC, as the steps are. Pure. */
export function stepLabel(seconds: number, stepSeconds: number): string {
  const moment = new Date(seconds * 1000);
  const day = moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const hour = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
  if (stepSeconds >= DAY_SECONDS) return day;
  return hour === "00:00" ? day : hour;
}
