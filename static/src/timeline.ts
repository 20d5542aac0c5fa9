/** The changes of state of one instance, newest first. */

import { el, setText } from "./dom";
import { formatClock, formatDuration } from "./format";
import type { HistoryEntry } from "./types";
import { toneOf } from "./words";

const MAX_ENTRIES = 100;

/** One entry for each stay in a state: what is news has the words, the earliest the time. Pure. */
export function mergeHistory(known: readonly HistoryEntry[], news: readonly HistoryEntry[]): HistoryEntry[] {
  const merged = new Map<number, HistoryEntry>();
  for (const entry of [...known, ...news]) {
    const timestamp = Math.min(entry.timestamp, merged.get(entry.stateSeq)?.timestamp ?? entry.timestamp);
    merged.set(entry.stateSeq, { ...entry, timestamp });
  }
  return [...merged.values()].sort((one, other) => one.stateSeq - other.stateSeq).slice(-MAX_ENTRIES);
}

/** The list on the card. */
export class Timeline {
  private entries: HistoryEntry[] = [];
  private lasting: HTMLElement | null = null;

  constructor(private readonly list: HTMLElement) {}

  /** Take changes in, in any order, and more than once. */
  add(news: readonly HistoryEntry[]): void {
    this.entries = mergeHistory(this.entries, news);
    this.render();
  }

  /** The number of the newest change that is known; −1 when none is. */
  get newestSeq(): number {
    return this.entries.at(-1)?.stateSeq ?? -1;
  }

  /** Forget everything. */
  clear(): void {
    this.entries = [];
  }

  /** Count on how long the present state has lasted. */
  tick(serverNow: number): void {
    const newest = this.entries.at(-1);
    if (newest && this.lasting) setText(this.lasting, `for ${formatDuration((serverNow - newest.timestamp) / 1000)}`);
  }

  private render(): void {
    const items = this.entries.map((entry, index) => this.item(entry, this.entries[index + 1])).reverse();
    this.list.replaceChildren(...items);
    this.lasting = this.list.querySelector(".lasted");
  }

  private item(entry: HistoryEntry, next: HistoryEntry | undefined): HTMLElement {
    const lasted = next ? formatDuration((next.timestamp - entry.timestamp) / 1000) : "";
    const time = el("time", { datetime: new Date(entry.timestamp).toISOString() }, formatClock(entry.timestamp));
    return el(
      "li",
      { "data-tone": toneOf(entry.status) },
      el("span", { class: "what" }, next ? settled(entry.headline) : entry.headline),
      el("span", { class: "when" }, time, " · ", el("span", { class: "lasted" }, lasted)),
    );
  }
}

/** A share of loading is of no interest once the loading is over. */
function settled(headline: string): string {
  return headline.replace(/ — loading, \d+\s?%/, "");
}
