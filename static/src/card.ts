/** One instance on the status page. The template draws the card; this keeps it true. */

import { act, ApiError, loadInstance } from "./api";
import { announce, el, must, part, setAttribute, setProse, setText } from "./dom";
import { formatBytes, formatCount, formatDuration, formatInteger, plural } from "./format";
import { uptimeSeconds } from "./llama_status";
import { LogTail } from "./logs";
import { Timeline } from "./timeline";
import type { HistoryEntry, LlamaModel, LlamaServiceStatus } from "./types";
import { type Action, ACTIONS, actionRules, hasProcess, headlineOf, toneOf } from "./words";

const ASKED_WORDS: Record<Action, string> = { start: "Starting…", stop: "Stopping…", restart: "Restarting…" };

/** Binds a card that the server rendered, or a clone of the template. */
export class InstanceCard {
  private status: LlamaServiceStatus;
  private asked: Action | null = null;
  /** Counts the runs of the supervisor that this card has seen: what an older one told is not comparable. */
  private run = 0;
  private readonly timeline: Timeline;
  private readonly log: LogTail;

  constructor(
    readonly root: HTMLElement,
    status: LlamaServiceStatus,
    private readonly serverNow: () => number,
  ) {
    this.status = status;
    this.timeline = new Timeline(part(root, "timeline"));
    this.log = new LogTail(part<HTMLDetailsElement>(root, "log"), status.instance);
    for (const [action, control] of this.controls()) control.addEventListener("click", () => void this.press(action));
    part(root, "refusal-close").addEventListener("click", () => this.refuse(null));
    this.render();
    void this.loadHistory();
  }

  /** Show a newer status. */
  update(status: LlamaServiceStatus): void {
    const before = this.status;
    if (status === before) return;
    this.status = status;
    const known = this.timeline.newestSeq;
    if (status.stateSeq !== before.stateSeq || status.status !== before.status) this.onChange();
    // Whoever falls behind gets the newest truth only.
    if (status.stateSeq > known + 1) void this.loadHistory();
    this.render();
  }

  /** Count on what changes with time alone. */
  tick(): void {
    const now = this.serverNow();
    const headline = part(this.root, "headline");
    setText(headline, headlineOf(this.status, now));
    // The badge says the bare state already.
    headline.hidden = this.status.headline === this.status.status;
    if (this.status.startedAt && hasProcess(this.status.status)) this.setFact("uptime", formatDuration(uptimeSeconds(this.status, now)));
    this.timeline.tick(now);
  }

  /** The supervisor may be another run. */
  startAnew(): void {
    this.run += 1;
    this.timeline.clear();
    void this.loadHistory();
  }

  private async loadHistory(): Promise<void> {
    const run = this.run;
    try {
      const { history } = await loadInstance(this.status.instance);
      if (run === this.run) this.timeline.add(history);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // The timeline then begins with what is known now, or with the next change; the next connection fills it.
      if (this.run === 0) this.timeline.add([this.entry()]);
    }
    this.tick();
  }

  /** Remove the card and what it holds. */
  remove(): void {
    this.log.close();
    this.root.remove();
  }

  private onChange(): void {
    this.asked = null;
    this.refuse(null);
    this.timeline.add([this.entry()]);
    if (this.status.status === "error") part<HTMLDetailsElement>(this.root, "stderr").open = true;
    announce(`${this.status.instance}: ${this.status.headline}`);
  }

  private entry(): HistoryEntry {
    const { stateSeq, status, reason, headline } = this.status;
    return { stateSeq, status, reason, headline, timestamp: this.serverNow() };
  }

  private render(): void {
    this.renderHead();
    this.renderStory();
    this.renderFacts();
    this.renderModels();
    this.renderOutput();
    this.tick();
  }

  private renderHead(): void {
    const { instance, status } = this.status;
    setAttribute(this.root, "data-instance", instance);
    setAttribute(this.root, "aria-label", `Instance ${instance}`);
    setAttribute(this.root, "data-state", status);
    setAttribute(this.root, "data-tone", toneOf(status));
    setAttribute(must(this.root, ".instance-title"), "data-state", status);
    setText(part(this.root, "name"), instance);
    setText(part(this.root, "state"), status);
    setAttribute(part(this.root, "chat"), "href", `/chat?model=${encodeURIComponent(instance)}`);
    this.renderActions();
  }

  private renderActions(): void {
    const rules = actionRules(this.status);
    for (const [action, control] of this.controls()) {
      control.disabled = this.asked !== null || !rules[action].enabled;
      control.title = rules[action].title;
      setAttribute(control, "aria-busy", this.asked === action ? "true" : null);
    }
    const asked = part(this.root, "asked");
    asked.hidden = this.asked === null;
    if (this.asked) setText(asked, ASKED_WORDS[this.asked]);
  }

  private renderStory(): void {
    const { explanation, remedy, status, progress } = this.status;
    setProse(part(this.root, "explanation"), explanation);
    const remedyLine = part(this.root, "remedy");
    remedyLine.hidden = !remedy || explanation.includes(remedy);
    setProse(remedyLine, remedy ?? "");
    const bar = part(this.root, "progress");
    bar.hidden = status !== "starting";
    setAttribute(bar, "value", progress === null ? null : String(progress));
  }

  private renderFacts(): void {
    const { status, engine, pid, retries, maxRetries, lastCrash, address, startedAt } = this.status;
    if (!startedAt || !hasProcess(status)) this.setFact("uptime", null);
    this.setFact("engine", engine);
    this.setFact("pid", pid !== null && hasProcess(status) ? String(pid) : null);
    this.setFact("retries", `${retries} of ${maxRetries}`);
    this.setFact("lastCrash", status === "ready" ? lastCrash : null);
    this.setFact("address", address);
  }

  private setFact(name: string, value: string | null): void {
    const row = must(this.root, `[data-fact="${name}"]`);
    row.hidden = !value;
    setText(must(row, "dd"), value ?? "");
  }

  private renderModels(): void {
    const { models } = this.status;
    part(this.root, "models").replaceChildren(...models.map(modelItem));
    part(this.root, "no-models").hidden = models.length > 0;
  }

  private renderOutput(): void {
    const { stderrTail } = this.status;
    part(this.root, "stderr").hidden = stderrTail.length === 0;
    setText(part(this.root, "stderr-count"), plural(stderrTail.length, "line"));
    setText(part(this.root, "stderr-text"), stderrTail.join("\n"));
  }

  private async press(action: Action): Promise<void> {
    this.asked = action;
    this.refuse(null);
    this.renderActions();
    try {
      await act(this.status.instance, action);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refuse(error.message);
    } finally {
      // The new state comes by the socket, usually before the answer.
      this.asked = null;
      this.renderActions();
    }
  }

  private refuse(message: string | null): void {
    setText(part(this.root, "refusal-text"), message ?? "");
    part(this.root, "refusal").hidden = message === null;
  }

  /** The buttons that the card has: none where the server has drawn none, for who may change nothing. */
  private controls(): [Action, HTMLButtonElement][] {
    return ACTIONS.flatMap((action) => {
      const control = this.root.querySelector<HTMLButtonElement>(`[data-action="${action}"]`);
      return control ? [[action, control]] : [];
    });
  }
}

function modelItem(model: LlamaModel): HTMLElement {
  const facts = modelFacts(model).map((fact) => el("li", {}, fact));
  return el(
    "li",
    { class: "model" },
    el("div", { class: "model-name" }, el("span", {}, model.name), el("span", {}, model.size > 0 ? formatBytes(model.size) : "")),
    el("ul", { class: "model-facts" }, ...facts),
  );
}

function modelFacts({ metadata = {} }: LlamaModel): string[] {
  const { architecture, parameter_count: parameters, quantisation, context_length: context, licence } = metadata;
  return [
    architecture,
    parameters ? `${formatCount(parameters)} parameters` : undefined,
    quantisation,
    context ? `context ${formatInteger(context)}` : undefined,
    licence,
  ].filter((fact) => fact !== undefined);
}
