/** The live charts of the status page, with uPlot (which sets its styles through CSSOM, as the content policy wants it). */

import uPlot from "uplot";
import { formatDecimal } from "./format";

const WINDOW_SECONDS = 300;
const FIRST_WINDOW_SECONDS = 60;
const SAMPLE_SECONDS = 2;
const MAX_SAMPLES = WINDOW_SECONDS / SAMPLE_SECONDS;
const GAP_SECONDS = 3 * SAMPLE_SECONDS;
const LINE_PIXELS = 1.75;
const AXIS_PIXELS = 34;
const FILL_ALPHA = 0.14;

/** Times (unix seconds) and values; null breaks the line where nothing was heard for a while. */
export class Series {
  readonly times: number[] = [];
  readonly values: (number | null)[] = [];

  /** Append one value, in order of time. */
  push(time: number, value: number | null): void {
    const last = this.times.at(-1);
    if (last !== undefined && time <= last) return;
    if (last !== undefined && time - last > GAP_SECONDS) this.append(last + SAMPLE_SECONDS, null);
    this.append(time, value);
    const surplus = this.times.length - MAX_SAMPLES;
    if (surplus > 0) {
      this.times.splice(0, surplus);
      this.values.splice(0, surplus);
    }
  }

  private append(time: number, value: number | null): void {
    this.times.push(time);
    this.values.push(value);
  }
}

/** One small chart over the last five minutes; colours come from the style sheet (`caret-color`, `color`, `border-color`). */
export class LiveChart {
  private readonly series = new Series();
  private readonly plot: uPlot;

  constructor(private readonly frame: HTMLElement) {
    this.plot = new uPlot(this.options(), [[], []], frame);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(frame);
    document.addEventListener("themechange", () => this.plot.redraw());
  }

  /** Show one more value; `time` in unix seconds. */
  push(time: number, value: number | null): void {
    this.series.push(time, value);
    this.plot.setData([this.series.times, this.series.values], false);
    // The first minutes are not spent on an empty chart.
    const first = Math.min(this.series.times[0] ?? time, time - FIRST_WINDOW_SECONDS);
    this.plot.setScale("x", { min: Math.max(first, time - WINDOW_SECONDS), max: time });
  }

  private size(): { width: number; height: number } {
    return { width: Math.max(1, this.frame.clientWidth), height: Math.max(1, this.frame.clientHeight) };
  }

  private options(): uPlot.Options {
    const style = getComputedStyle(this.frame);
    const label = (): string => style.color;
    return {
      ...this.size(),
      padding: [6, 0, 8, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false }, y: { range: (_plot, _min, max) => [0, niceCeiling(max)] } },
      axes: [
        { show: false },
        {
          size: AXIS_PIXELS,
          gap: 4,
          font: `11px ${style.fontFamily}`,
          stroke: label,
          ticks: { show: false },
          grid: { stroke: () => style.borderTopColor, width: 1 },
          splits: (_plot, _axis, _min, max) => [0, max / 2, max],
          values: (_plot, splits) => splits.map(axisLabel),
        },
      ],
      series: [
        {},
        {
          stroke: () => style.caretColor,
          fill: () => withAlpha(style.caretColor, FILL_ALPHA),
          width: LINE_PIXELS,
          points: { show: false },
        },
      ],
    };
  }
}

/** The next of 2, 4, 10, 20, 40, 100, … so that the half of it is a round number too. Pure. */
export function niceCeiling(value: number): number {
  if (!Number.isFinite(value) || value <= 2) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 4, 10].find((each) => value <= each * power) ?? 10;
  return factor * power;
}

function axisLabel(value: number): string {
  if (value >= 1000) return `${formatDecimal(value / 1000).replace(".0", "")}k`;
  return Number.isInteger(value) ? String(value) : formatDecimal(value);
}

function withAlpha(colour: string, alpha: number): string {
  const numbers = /^rgba?\(([^)]+)\)$/.exec(colour)?.[1]?.split(/[\s,/]+/).slice(0, 3);
  return numbers ? `rgba(${numbers.join(",")},${alpha})` : "transparent";
}
