/** The chat page. */

import { act, ApiError } from "../api";
import { forgetStream, recallStream, rememberStream } from "../chat_resume";
import { AnswerRun } from "../chat_run";
import { SettingsDrawer } from "../chat_settings";
import { type Answer, anotherAnswer, assistantTurn, type AssistantTurn, loadTurns, messagesFor, shownAnswer, storeTurns, type Turn, type UserTurn, userTurn } from "../chat_state";
import type { ChatRequest } from "../chat_stream";
import { ChatView } from "../chat_view";
import { Composer } from "../composer";
import { ConnectionIndicator } from "../connection";
import { announce, el, must, part, setAttribute, setText } from "../dom";
import { useLlamaStatus as store } from "../llama_status";
import { instanceFor, modelOptions } from "../models";
import { actionRules, headlineOf, passesByItself, toneOf, whyNotReady } from "../words";
import type { LlamaServiceStatus } from "../types";

const TICK_MILLISECONDS = 250;
const STORE_MILLISECONDS = 1_000;
const MAX_ANNOUNCED_CHARACTERS = 600;
const MODEL_KEY = "llamavisor.chat.model";

class ChatPage {
  private turns: Turn[] = loadTurns();
  private run: AnswerRun | null = null;
  private startRefusal: string | null = null;
  private isLeaving = false;
  private told: string | null = null;
  private storeTimer: ReturnType<typeof setTimeout> | null = null;
  /** The model asked for; it stays wanted while the instances arrive one by one, until a person chooses or sends. */
  private wanted = new URLSearchParams(location.search).get("model") ?? recall(MODEL_KEY);
  /** The instance that answered for it last: a model's id is nobody's while its server starts again. */
  private answering: string | null = null;
  private readonly select = part<HTMLSelectElement>(document, "model");
  /** The server draws none for who may not start anything. */
  private readonly startButton = document.querySelector<HTMLButtonElement>('[data-part="strip-start"]');
  private readonly indicator = new ConnectionIndicator(part(document, "connection"));
  private readonly drawer: SettingsDrawer;
  private readonly view: ChatView;
  private readonly composer: Composer;

  constructor() {
    const opener = part<HTMLButtonElement>(document, "settings-open");
    this.drawer = new SettingsDrawer(part(document, "settings"), opener, () => this.renderSettings());
    this.view = new ChatView(part(document, "frame"), part(document, "turns"), part(document, "jump"), {
      resend: (turn, text) => this.resend(turn, text),
      retry: (turn) => this.retry(turn),
      show: (turn, index) => this.show(turn, index),
    });
    this.composer = new Composer(part(document, "composer"), {
      send: (text) => this.send(text),
      stop: () => this.stop(),
      editLast: () => this.editLast(),
    });
    if ([...this.select.options].some(({ value }) => value === this.wanted)) this.select.value = this.wanted ?? "";
    this.bind();
    this.renderSettings();
    this.renderTurns();
    this.renderFleet();
    this.rejoin();
    this.view.scrollToEnd();
    this.composer.focus();
  }

  readonly renderFleet = (): void => {
    const fleet = store.getFleet();
    this.renderModels(fleet.instances);
    this.tick();
  };

  readonly tick = (): void => {
    const instance = this.instance();
    const now = store.serverNow();
    this.indicator.update(store.getFleet(), Date.now());
    const strip = part(document, "strip");
    strip.hidden = !instance;
    if (!instance) return;
    setAttribute(strip, "data-tone", toneOf(instance.status));
    setAttribute(strip, "data-state", instance.status);
    setText(part(strip, "strip-name"), instance.instance);
    setText(part(strip, "strip-state"), instance.status);
    this.tell(instance);
    const story = this.startRefusal ?? headlineOf(instance, now).replace(/^\w+( — )?/, "");
    setText(part(strip, "strip-story"), story);
    this.composer.setHint(hintFor(instance, this.startButton !== null));
    if (!this.startButton) return;
    const { enabled, title } = actionRules(instance).start;
    this.startButton.hidden = !enabled;
    this.startButton.title = title;
  };

  private tell({ instance, status, headline }: LlamaServiceStatus): void {
    const key = `${instance} ${status}`;
    if (this.told !== null && this.told !== key) announce(`${instance}: ${headline}`);
    this.told = key;
  }

  private bind(): void {
    part(document, "new-chat").addEventListener("click", () => this.newChat());
    this.startButton?.addEventListener("click", () => void this.startInstance());
    this.select.addEventListener("change", () => {
      this.wanted = this.select.value;
      remember(MODEL_KEY, this.wanted);
      this.startRefusal = null;
      this.tick();
    });
    for (const example of document.querySelectorAll<HTMLButtonElement>("[data-example]")) {
      example.addEventListener("click", () => this.send(example.textContent?.trim() ?? ""));
    }
    document.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("pagehide", () => {
      storeTurns(this.turns);
      // The browser now breaks the stream off; what is stored says already that the page was left.
      this.isLeaving = true;
    });
    addEventListener("pageshow", () => {
      this.isLeaving = false;
    });
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Escape" && this.run && !part<HTMLDialogElement>(document, "settings").open) this.stop();
    const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.composer.focus();
    }
  }

  private instance(): LlamaServiceStatus | undefined {
    const { instances, defaultName } = store.getFleet();
    return instanceFor(this.select.value, instances, defaultName);
  }

  private send(text: string): void {
    if (!text || this.run) return;
    this.turns = [...this.turns, userTurn(text)];
    this.answer(assistantTurn(this.select.value));
  }

  private resend(turn: UserTurn, text: string): void {
    this.stop();
    this.turns = [...this.turns.slice(0, this.turns.indexOf(turn)), userTurn(text)];
    this.answer(assistantTurn(this.select.value));
  }

  private retry(turn: AssistantTurn): void {
    if (this.run) return;
    this.turns = this.turns.slice(0, this.turns.indexOf(turn));
    const answer = anotherAnswer(turn, this.select.value);
    this.answer(turn, answer);
  }

  private show(turn: AssistantTurn, index: number): void {
    turn.shown = index;
    this.renderTurns();
  }

  private answer(turn: AssistantTurn, answer: Answer = shownAnswer(turn)): void {
    if (answer.model) this.wanted = answer.model;
    const messages = messagesFor(this.turns, this.drawer.settings.system);
    this.turns = [...this.turns, turn];
    this.follow(turn, answer, { model: answer.model, messages, sampling: this.drawer.settings.sampling });
  }

  /** The answer that was coming when this tab was reloaded goes on. */
  private rejoin(): void {
    const pending = recallStream();
    const turn = this.turns.at(-1);
    if (!pending || turn?.role !== "assistant" || turn.id !== pending.turnId) return;
    const answer = turn.answers.at(-1);
    if (answer?.status === "cut") this.follow(turn, answer, pending.streamId);
  }

  private follow(turn: AssistantTurn, answer: Answer, asked: ChatRequest | string): void {
    const readiness = { instance: () => this.instance(), subscribe: store.subscribe };
    const run = new AnswerRun(answer, asked, readiness, {
      change: () => this.onAnswerChange(turn),
      stream: (streamId) => rememberStream({ streamId, turnId: turn.id }),
    });
    this.run = run;
    this.renderTurns();
    this.view.scrollToEnd();
    this.composer.focus();
    void run.run().finally(() => this.onAnswerEnd(run, answer));
  }

  private onAnswerChange(turn: AssistantTurn): void {
    this.view.update(turn, turn === this.turns.at(-1));
    this.storeTimer ??= setTimeout(() => {
      this.storeTimer = null;
      storeTurns(this.turns);
    }, STORE_MILLISECONDS);
  }

  private onAnswerEnd(run: AnswerRun, answer: Answer): void {
    if (this.run === run) this.run = null;
    if (!this.isLeaving) {
      storeTurns(this.turns);
      if (this.run === null) forgetStream();
    }
    this.renderTurns();
    announce(spoken(answer));
  }

  private stop(): void {
    this.run?.stop();
    this.run = null;
    this.renderTurns();
  }

  private editLast(): void {
    const last = [...this.turns].reverse().find((turn) => turn.role === "user");
    if (last) this.view.edit(last);
  }

  private newChat(): void {
    this.stop();
    this.turns = [];
    storeTurns(this.turns);
    this.renderTurns();
    this.composer.focus();
  }

  private async startInstance(): Promise<void> {
    const instance = this.instance();
    if (!instance) return;
    this.startRefusal = null;
    try {
      await act(instance.instance, "start");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.startRefusal = error.message;
      this.tick();
    }
  }

  private renderTurns(): void {
    this.view.render(this.turns);
    this.composer.setAnswering(this.run !== null);
    part(document, "welcome").hidden = this.turns.length > 0;
    part<HTMLButtonElement>(document, "new-chat").disabled = this.turns.length === 0;
  }

  private renderSettings(): void {
    const { system, sampling } = this.drawer.settings;
    const count = Object.keys(sampling).length + (system.trim() ? 1 : 0);
    setText(part(document, "settings-count"), count > 0 ? String(count) : "");
  }

  private renderModels(instances: readonly LlamaServiceStatus[]): void {
    if (instances.length === 0) return;
    const options = modelOptions(instances);
    const signature = JSON.stringify(options);
    if (this.select.dataset["options"] === signature) return;
    const chosen = this.wanted ?? this.select.value;
    this.select.dataset["options"] = signature;
    this.select.replaceChildren(...options.map(({ value, label }) => el("option", { value }, label)));
    const named = options.find(({ value }) => value === chosen) ?? instanceFor(chosen, instances, null);
    this.answering = named?.instance ?? this.answering;
    const known = options.some(({ value }) => value === chosen) ? chosen : instances.find((each) => each.instance === this.answering)?.instance;
    this.select.value = known ?? store.getFleet().defaultName ?? options[0]?.value ?? "";
  }
}

function hintFor(instance: LlamaServiceStatus, mayStart: boolean): string {
  if (instance.status === "ready") return "";
  const needsStart = mayStart && !passesByItself(instance.status);
  return `${whyNotReady(instance)}. ${needsStart ? "Start it, and your" : "Your"} message is sent when it is ready.`;
}

function spoken({ status, text, note }: Answer): string {
  const short = text.length > MAX_ANNOUNCED_CHARACTERS ? `${text.slice(0, MAX_ANNOUNCED_CHARACTERS)}…` : text;
  if (status === "done") return `Answer: ${short}`;
  return status === "stopped" ? "The answer was stopped" : `The answer is not complete: ${note ?? ""}`;
}

function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Forbidden: the choice then lasts as long as the page.
  }
}

const page = new ChatPage();
must(document, "#main").removeAttribute("aria-busy");
store.subscribe(page.renderFleet);
store.subscribeInstance("*");
setInterval(page.tick, TICK_MILLISECONDS);
