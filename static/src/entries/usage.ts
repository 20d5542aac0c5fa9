/** The page on usage: draws the chart, and shows what is chosen at once. */

import { BarChart, type BarData, stepLabel } from "../bars";
import { bootstrapData, must, part, setText } from "../dom";
import { formatInteger } from "../format";
import { localiseTimes } from "../moments";

const MICROS_PER_UNIT = 1_000_000;

interface Bootstrap {
  chart: BarData & { metric: "tokens" | "cost" | "requests" };
  currency: string;
}

function valueText(value: number, metric: string, currency: string): string {
  if (metric !== "cost") return formatInteger(value);
  return `${value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 6 })} ${currency}`;
}

/** One step in words, the most first. */
function readout({ times, series, metric }: Bootstrap["chart"], step: number | null, currency: string): string {
  const start = step === null ? undefined : times[step];
  if (start === undefined || step === null) return "";
  const width = (times[1] ?? start) - (times[0] ?? start);
  const parts = series.map(({ name, values }) => ({ name, value: values[step] ?? 0 })).filter(({ value }) => value > 0);
  const whole = parts.reduce((sum, { value }) => sum + value, 0);
  const shown = parts.map(({ name, value }) => `${name} ${valueText(value, metric, currency)}`).join(" · ");
  return `${stepLabel(start, width)} UTC: ${valueText(whole, metric, currency)}${parts.length > 1 ? ` (${shown})` : ""}`;
}

function drawChart({ chart, currency }: Bootstrap): void {
  // Inside, money is in millionths; people read units.
  const scale = chart.metric === "cost" ? MICROS_PER_UNIT : 1;
  const series = chart.series.map(({ name, values }) => ({ name, values: values.map((value) => value / scale) }));
  const shown = { ...chart, series };
  const line = part(document, "readout");
  const colours = (index: number): string => getComputedStyle(must(document, `.swatch[data-series="${index}"]`)).color;
  new BarChart(part(document, "chart"), shown, colours, (step) => setText(line, readout(shown, step, currency)));
}

function begin(): void {
  localiseTimes(document);
  const choices = document.querySelector<HTMLFormElement>('[data-part="choices"]');
  choices?.addEventListener("change", () => choices.requestSubmit());
  const data = bootstrapData<Bootstrap>();
  if (data) drawChart(data);
}

begin();
