/** The figures beside the cards: asked for every two seconds while the page is in sight. */

import { LiveChart } from "./charts";
import { must, setText } from "./dom";
import { formatBytes, formatDecimal, formatInteger } from "./format";
import type { MetricsData, MetricsEvent } from "./types";

const INTERVAL_MILLISECONDS = 2_000;
const STALE_MILLISECONDS = 3 * INTERVAL_MILLISECONDS;

type Ask = () => void;

/** The panel; `ask` sends the request for figures, `take` is called with each answer. */
export class Traffic {
  private readonly tokens: LiveChart;
  private readonly requests: LiveChart;
  private lastTakenAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly root: HTMLElement,
    private readonly ask: Ask,
  ) {
    this.tokens = new LiveChart(must(root, '[data-chart="tokensPerSecond"]'));
    this.requests = new LiveChart(must(root, '[data-chart="requestsActive"]'));
    setInterval(() => this.tick(), INTERVAL_MILLISECONDS);
    document.addEventListener("visibilitychange", () => this.tick());
  }

  /** Show one answer. */
  take({ data, timestamp }: MetricsEvent): void {
    this.lastTakenAt = performance.now();
    this.root.classList.remove("stale");
    this.tokens.push(timestamp / 1000, data.tokensPerSecond ?? null);
    this.requests.push(timestamp / 1000, data.requestsActive ?? null);
    for (const [name, text] of Object.entries(metricTexts(data))) setText(must(this.root, `[data-metric="${name}"]`), text);
  }

  private tick(): void {
    if (document.hidden) return;
    this.root.classList.toggle("stale", performance.now() - this.lastTakenAt > STALE_MILLISECONDS);
    this.ask();
  }
}

function metricTexts(data: MetricsData): Record<string, string> {
  const queued = data.requestsQueued ?? 0;
  return {
    tokensPerSecond: formatDecimal(data.tokensPerSecond),
    requestsActive: formatInteger(data.requestsActive ?? 0),
    requestsQueued: queued > 0 ? `active, ${formatInteger(queued)} queued` : "active",
    totalRequests: formatInteger(data.totalRequests),
    // Nothing was answered within the minute.
    avgResponseTime: data.avgResponseTime ? milliseconds(data.avgResponseTime) : "–",
    // Without a process there is nothing to measure.
    memoryUsage: data.memoryUsage > 0 ? formatBytes(data.memoryUsage) : "–",
    cpuUsage: data.memoryUsage > 0 ? `${formatDecimal(data.cpuUsage)} %` : "–",
  };
}

function milliseconds(value: number): string {
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}
