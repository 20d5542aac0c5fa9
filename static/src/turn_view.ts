/** How one turn of the conversation looks. */

import { type Answer, type AssistantTurn, isOpen, shownAnswer, type Turn, type UserTurn } from "./chat_state";
import { bindCopy, button, el, perFrame, setAttribute, setText } from "./dom";
import { formatDecimal, plural } from "./format";
import { LiveMarkdown } from "./markdown";

/** What a person can do with a turn. */
export interface TurnActions {
  resend(turn: UserTurn, text: string): void;
  retry(turn: AssistantTurn): void;
  show(turn: AssistantTurn, index: number): void;
}

/** A turn in the page. `isLast`: nothing follows it, so it may be answered anew. */
export interface TurnView {
  readonly root: HTMLElement;
  update(isLast: boolean): void;
}

/** The view that fits the turn. */
export function makeTurnView(turn: Turn, actions: TurnActions): TurnView & { edit?(): void } {
  return turn.role === "user" ? new UserTurnView(turn, actions) : new AssistantTurnView(turn, actions);
}

/** What a person wrote, which can be edited and sent again. */
export class UserTurnView implements TurnView {
  readonly root = el("article", { class: "turn user", "aria-label": "You" });

  constructor(
    private readonly turn: UserTurn,
    private readonly actions: TurnActions,
  ) {
    this.showText();
  }

  update(): void {
    // What was asked does not change in place: an edit makes a new turn.
  }

  /** Open the text for editing, with the cursor in it. */
  edit(): void {
    const area = el("textarea", { class: "field", "aria-label": "Edit the message", rows: 3 });
    area.value = this.turn.text;
    const cancel = button("Cancel", "close", { class: "small quiet" });
    const send = button("Send again", "up", { class: "small primary" });
    cancel.addEventListener("click", () => this.closeEditor());
    send.addEventListener("click", () => this.send(area.value));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.closeEditor();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send(area.value);
      }
    });
    this.root.replaceChildren(el("div", { class: "editor" }, area, el("div", { class: "editor-actions" }, cancel, send)));
    area.focus();
  }

  private send(text: string): void {
    if (text.trim()) this.actions.resend(this.turn, text);
  }

  private closeEditor(): void {
    this.showText();
    this.root.querySelector<HTMLElement>("[aria-label='Edit']")?.focus();
  }

  private showText(): void {
    const edit = button("Edit", "edit", { class: "quiet small", iconOnly: true });
    edit.addEventListener("click", () => this.edit());
    const copy = button("Copy", "copy", { class: "quiet small", iconOnly: true });
    bindCopy(copy, () => this.turn.text);
    const tools = el("div", { class: "turn-tools", role: "group", "aria-label": "Message" }, copy, edit);
    this.root.replaceChildren(el("div", { class: "bubble" }, this.turn.text), tools);
  }
}

const FRAME_SHARE = 4;

/** An answer, drawn while it comes. */
export class AssistantTurnView implements TurnView {
  readonly root = el("article", { class: "turn assistant", "aria-label": "Answer" });
  private readonly body = el("div", { class: "markdown" });
  private readonly thinking = el("details", { class: "thinking" }, el("summary", {}, "Thinking"));
  private readonly thoughts = el("div", { class: "thoughts" });
  private readonly mark = el("div", { class: "mark" });
  private readonly figures = el("span", { class: "figures" });
  private readonly tools = el("div", { class: "turn-tools", role: "group", "aria-label": "Answer" });
  private live = new LiveMarkdown(this.body);
  private drawn: Answer | null = null;
  private finished = false;
  private isLast = false;
  private notBefore = 0;
  private readonly drawSoon = perFrame(() => this.draw());

  constructor(
    private readonly turn: AssistantTurn,
    private readonly actions: TurnActions,
  ) {
    this.thinking.append(this.thoughts);
    this.root.append(this.thinking, this.body, this.mark, this.tools);
  }

  update(isLast: boolean): void {
    this.isLast = isLast;
    this.drawSoon();
  }

  private draw(): void {
    const answer = shownAnswer(this.turn);
    const now = performance.now();
    // A long block costs more than a frame; then it is drawn less often, so that the page stays quick.
    if (isOpen(answer) && now < this.notBefore) {
      setTimeout(this.drawSoon, this.notBefore - now);
      return;
    }
    this.drawText(answer);
    this.notBefore = now + FRAME_SHARE * (performance.now() - now);
    this.drawState(answer);
  }

  private drawText(answer: Answer): void {
    if (this.drawn !== answer) {
      this.body.replaceChildren();
      this.live = new LiveMarkdown(this.body);
      this.drawn = answer;
      this.finished = false;
    }
    if (isOpen(answer)) this.live.update(answer.text);
    else if (!this.finished) {
      this.live.finish(answer.text);
      this.finished = true;
    }
    this.thinking.hidden = answer.reasoning === "";
    setText(this.thoughts, answer.reasoning);
  }

  private drawState(answer: Answer): void {
    setAttribute(this.root, "data-status", answer.status);
    setAttribute(this.root, "aria-busy", isOpen(answer) ? "true" : null);
    const key = `${answer.status}|${answer.note}|${this.isLast}|${this.turn.shown}/${this.turn.answers.length}`;
    setText(this.figures, figuresOf(answer));
    if (this.root.dataset["drawn"] === key) return;
    this.root.dataset["drawn"] = key;
    this.mark.replaceChildren(...this.markContent(answer));
    this.tools.replaceChildren(...this.toolContent(answer));
  }

  private markContent(answer: Answer): Node[] {
    if (answer.status === "waiting") return [waitingMark(answer)];
    const words = endWords(answer);
    if (!words) return [];
    const [tone, text] = words;
    const notice = el("div", { class: "notice", "data-tone": tone }, el("span", {}, text));
    const canRetry = this.isLast && (answer.status === "cut" || answer.status === "failed");
    if (canRetry) notice.append(this.retryButton("Retry", "small"));
    return [notice];
  }

  private toolContent(answer: Answer): Node[] {
    if (isOpen(answer)) return [...this.pager(), this.figures];
    const copy = button("Copy", "copy", { class: "quiet small", iconOnly: true });
    bindCopy(copy, () => shownAnswer(this.turn).text);
    const again = this.isLast ? [this.retryButton("Answer again", "quiet small", true)] : [];
    return [...this.pager(), ...(answer.text ? [copy] : []), ...again, this.figures];
  }

  private retryButton(label: string, style: string, iconOnly = false): HTMLButtonElement {
    const control = button(label, "restart", { class: style, iconOnly });
    control.addEventListener("click", () => this.actions.retry(this.turn));
    return control;
  }

  private pager(): Node[] {
    const { shown, answers } = this.turn;
    if (answers.length < 2) return [];
    const back = button("Previous answer", "left", { class: "quiet small", iconOnly: true });
    const on = button("Next answer", "right", { class: "quiet small", iconOnly: true });
    back.disabled = shown === 0;
    on.disabled = shown === answers.length - 1;
    back.addEventListener("click", () => this.actions.show(this.turn, shown - 1));
    on.addEventListener("click", () => this.actions.show(this.turn, shown + 1));
    return [back, el("span", { class: "figures" }, `${shown + 1} / ${answers.length}`), on];
  }
}

function waitingMark(answer: Answer): HTMLElement {
  const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  return el("p", { class: "waiting" }, dots, answer.note ? `Waiting: ${answer.note}` : "Waiting for the first token");
}

function endWords(answer: Answer): [tone: string, text: string] | null {
  if (answer.status === "cut") return ["bad", `Cut off: ${answer.note ?? "the answer is not complete"}`];
  if (answer.status === "failed") return ["bad", answer.note ?? "No answer"];
  if (answer.status === "stopped") return ["warn", answer.text ? "Stopped by you" : "Stopped by you before the first token"];
  if (answer.reachedLimit) return ["warn", "Ended at the limit of tokens"];
  return answer.status === "done" && answer.text === "" && answer.reasoning === "" ? ["warn", "The model answered with nothing"] : null;
}

function figuresOf({ tokens, tokensPerSecond, model }: Answer): string {
  if (tokens === 0) return "";
  const rate = tokensPerSecond === null ? "" : ` · ${formatDecimal(tokensPerSecond)} tokens/s`;
  return `${model} · ${plural(tokens, "token")}${rate}`;
}
