/** The log tail of one instance: follows, filters, pauses, copies. Lines are text, never HTML. */

import { instancePath } from "./api";
import { bindCopy, button, el, perFrame, setText } from "./dom";
import { formatClock, formatInteger, plural } from "./format";
import type { LogEntry } from "./types";

const TAIL_LINES = 200;
const MAX_LINES = 1_000;
const MAX_HELD_LINES = 5_000;
const AT_END_PIXELS = 24;
const RETRY_MILLISECONDS = 2_000;

/** Follows while its section is open and the page is in sight. */
export class LogTail {
  private readonly lines: HTMLElement;
  private readonly empty = el("p", { class: "log-empty" }, "Nothing has been printed yet.");
  private readonly filter = el("input", { class: "field", type: "search", placeholder: "Filter", "aria-label": "Show only lines that contain", autocomplete: "off", spellcheck: "false" });
  private readonly pauseButton = button("Pause", "pause", { class: "small" });
  private readonly jumpButton = button("Newest", "down", { class: "small log-jump" });
  private readonly matches = el("span", { class: "muted", role: "status" });
  private source: EventSource | null = null;
  private retryTimer: ReturnType<typeof setTimeout> | null = null;
  private waiting: LogEntry[] = [];
  private newest = -1;
  private newestTimestamp = 0;
  private isPaused = false;
  private isAtEnd = true;
  private readonly flushSoon = perFrame(() => this.flush());

  constructor(
    private readonly section: HTMLDetailsElement,
    private readonly instance: string,
  ) {
    this.lines = el("div", { class: "log", tabindex: 0, role: "region", "aria-label": `Log of ${instance}` });
    this.lines.append(this.empty);
    section.append(this.toolbar(), el("div", { class: "log-frame" }, this.lines, this.jumpButton));
    this.jumpButton.hidden = true;
    this.bind();
    this.adjust();
  }

  /** Give the connection up; the card is going. */
  close(): void {
    this.disconnect();
    document.removeEventListener("visibilitychange", this.adjust);
  }

  private toolbar(): HTMLElement {
    const copy = button("Copy", "copy", { class: "small" });
    bindCopy(copy, () => this.text());
    return el("div", { class: "log-tools" }, this.filter, this.matches, this.pauseButton, copy);
  }

  private bind(): void {
    this.section.addEventListener("toggle", this.adjust);
    document.addEventListener("visibilitychange", this.adjust);
    this.filter.addEventListener("input", () => this.applyFilter());
    this.pauseButton.addEventListener("click", () => this.setPaused(!this.isPaused));
    this.jumpButton.addEventListener("click", () => this.scrollToEnd());
    this.lines.addEventListener("scroll", () => {
      this.isAtEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < AT_END_PIXELS;
      this.jumpButton.hidden = this.isAtEnd;
    });
  }

  private readonly adjust = (): void => {
    if (this.section.open && !document.hidden) this.connect();
    else this.disconnect();
  };

  private connect(): void {
    if (this.source !== null) return;
    const source = new EventSource(instancePath(this.instance, `/logs?tail=${TAIL_LINES}&follow=1`));
    source.addEventListener("log", (event: MessageEvent<string>) => this.take(JSON.parse(event.data) as LogEntry));
    source.addEventListener("error", () => {
      // The browser gives up for good when the server answers with an error, as it does while it is going down.
      if (source.readyState !== EventSource.CLOSED) return;
      this.disconnect();
      this.retryTimer = setTimeout(this.adjust, RETRY_MILLISECONDS);
    });
    this.source = source;
  }

  private disconnect(): void {
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    this.source?.close();
    this.source = this.retryTimer = null;
  }

  private take(entry: LogEntry): void {
    // Each connection begins with the tail, of which some is known. Numbers that begin anew mean another run of the supervisor.
    const isRestarted = entry.timestamp > this.newestTimestamp && entry.id < this.newest;
    if (entry.id <= this.newest && !isRestarted) return;
    this.newest = entry.id;
    this.newestTimestamp = entry.timestamp;
    this.waiting.push(entry);
    if (this.waiting.length > MAX_HELD_LINES) this.waiting.shift();
    if (this.isPaused) this.showPause();
    else this.flushSoon();
  }

  private flush(): void {
    if (this.isPaused || this.waiting.length === 0) return;
    this.empty.remove();
    const batch = this.waiting.splice(0).slice(-MAX_LINES);
    this.lines.append(...batch.map((entry) => this.line(entry)));
    while (this.lines.childElementCount > MAX_LINES) this.lines.firstElementChild?.remove();
    this.showMatches();
    if (this.isAtEnd) this.scrollToEnd();
  }

  private line(entry: LogEntry): HTMLElement {
    const row = el(
      "div",
      { class: "log-line", "data-level": entry.level },
      el("span", { class: "time" }, formatClock(entry.timestamp)),
      el("span", { class: "text" }, entry.message),
    );
    row.hidden = !this.isWanted(entry.message);
    return row;
  }

  private isWanted(message: string): boolean {
    return message.toLowerCase().includes(this.filter.value.trim().toLowerCase());
  }

  private applyFilter(): void {
    for (const row of this.rows()) row.hidden = !this.isWanted(row.lastElementChild?.textContent ?? "");
    this.showMatches();
    if (this.isAtEnd) this.scrollToEnd();
  }

  private showMatches(): void {
    const isFiltered = this.filter.value.trim() !== "";
    setText(this.matches, isFiltered ? plural(this.rows().filter((row) => !row.hidden).length, "line") : "");
  }

  private setPaused(isPaused: boolean): void {
    this.isPaused = isPaused;
    this.showPause();
    this.flushSoon();
  }

  private showPause(): void {
    const held = this.waiting.length;
    const label = this.isPaused ? (held > 0 ? `Resume (${formatInteger(held)} new)` : "Resume") : "Pause";
    this.pauseButton.setAttribute("aria-pressed", String(this.isPaused));
    setText(this.pauseButton.lastElementChild ?? this.pauseButton, label);
  }

  private scrollToEnd(): void {
    this.lines.scrollTop = this.lines.scrollHeight;
    this.isAtEnd = true;
    this.jumpButton.hidden = true;
  }

  private rows(): HTMLElement[] {
    return [...this.lines.querySelectorAll<HTMLElement>(".log-line")];
  }

  private text(): string {
    return this.rows()
      .filter((row) => !row.hidden)
      .map((row) => `${row.firstElementChild?.textContent ?? ""} ${row.lastElementChild?.textContent ?? ""}`)
      .join("\n");
  }
}
