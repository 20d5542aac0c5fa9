/** The place to write: grows with its text, sends on Enter, stops on Escape. */

import { must, part, setText } from "./dom";

/** What the composer asks of the page. `editLast` is the answer to Up in an empty field. */
export interface ComposerActions {
  send(text: string): void;
  stop(): void;
  editLast(): void;
}

const DRAFT_KEY = "llamavisor.chat.draft";

/** Binds the form of the template. */
export class Composer {
  private readonly area: HTMLTextAreaElement;
  private readonly sendButton: HTMLButtonElement;
  private readonly stopButton: HTMLButtonElement;
  private isAnswering = false;

  constructor(
    private readonly form: HTMLFormElement,
    private readonly actions: ComposerActions,
  ) {
    this.area = must(form, "textarea");
    this.sendButton = part(form, "send");
    this.stopButton = part(form, "stop");
    this.area.value = recallDraft();
    this.bind();
    this.adjust();
  }

  /** Put the cursor into the field. */
  focus(): void {
    this.area.focus();
  }

  /** While an answer comes, the button stops instead of sending. */
  setAnswering(isAnswering: boolean): void {
    const hadFocus = document.activeElement === this.stopButton;
    this.isAnswering = isAnswering;
    this.sendButton.hidden = isAnswering;
    this.stopButton.hidden = !isAnswering;
    if (hadFocus && !isAnswering) this.area.focus();
    this.adjust();
  }

  /** Say why a message would wait; empty when it would not. */
  setHint(hint: string): void {
    setText(part(this.form, "hint"), hint);
  }

  private bind(): void {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.stopButton.addEventListener("click", () => this.actions.stop());
    this.area.addEventListener("input", () => {
      storeDraft(this.area.value);
      this.adjust();
    });
    this.area.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("resize", () => this.adjust());
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && this.area.value === "") {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  private submit(): void {
    const text = this.area.value.trim();
    if (!text || this.isAnswering) return;
    this.area.value = "";
    storeDraft("");
    this.adjust();
    this.actions.send(text);
  }

  private adjust(): void {
    this.sendButton.disabled = this.area.value.trim() === "";
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight}px`;
  }
}

function recallDraft(): string {
  try {
    return sessionStorage.getItem(DRAFT_KEY) ?? "";
  } catch {
    return "";
  }
}

function storeDraft(text: string): void {
  try {
    sessionStorage.setItem(DRAFT_KEY, text);
  } catch {
    // Forbidden: a reload then loses the draft.
  }
}
