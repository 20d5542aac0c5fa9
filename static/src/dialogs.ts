/** The dialogs of a page, each a `<dialog data-dialog="NAME">` with a form: opened, sent, closed; a refusal is shown where it was caused. */

import { ApiError } from "./api";
import { must, part } from "./dom";

/** What sending a form does; an ApiError that it rejects with is shown in the dialog, which then stays open. */
export type Send = (fields: FormData) => Promise<unknown>;

/** What is written in the field of this name is not what belongs there. */
export class FieldError extends Error {
  constructor(
    readonly field: string,
    message: string,
  ) {
    super(message);
    this.name = "FieldError";
  }
}

/** One dialog of the page. What a field takes stands in its attributes, and what to say to anything else in its `data-refusal`. */
export class FormDialog {
  readonly root: HTMLDialogElement;
  readonly form: HTMLFormElement;
  /** Called when a person closes it; false keeps it open. */
  mayClose: () => boolean = () => true;
  /** Called when it is opened, empty. */
  whenOpened: () => void = () => undefined;
  private send: Send = () => Promise.resolve();
  private openerId = "";

  /** `closes`: whether it is closed when its form was sent. */
  constructor(
    name: string,
    private readonly closes = true,
  ) {
    this.root = must<HTMLDialogElement>(document, `[data-dialog="${name}"]`);
    this.form = part<HTMLFormElement>(this.root, "form");
    // The words are ours, and stay in sight: `check` asks what the browser would have asked.
    this.form.noValidate = true;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    for (const each of this.root.querySelectorAll("[data-close]")) each.addEventListener("click", () => this.mayClose() && this.root.close());
    this.root.addEventListener("cancel", (event) => this.mayClose() || event.preventDefault());
    // The button that opened it may have been exchanged meanwhile; the browser gives the focus back only to the very same.
    this.root.addEventListener("close", () => {
      if (document.activeElement === document.body) document.getElementById(this.openerId)?.focus();
    });
    // The buttons come and go with the parts of the page that they stand in.
    document.addEventListener("click", ({ target }) => {
      if (target instanceof Element && target.closest(`[data-open="${name}"]`)) this.open(this.send);
    });
  }

  /** Show it, empty. */
  open(send: Send): void {
    this.send = send;
    this.openerId = document.activeElement?.id ?? "";
    this.form.reset();
    this.accept();
    this.whenOpened();
    this.root.showModal();
  }

  /** What to do when it is opened by a button of the page. */
  whenSent(send: Send): this {
    this.send = send;
    return this;
  }

  private async submit(): Promise<void> {
    const control = this.form.querySelector<HTMLButtonElement>('button[type="submit"]');
    if (control) control.disabled = true;
    try {
      this.accept();
      this.check();
      await this.send(new FormData(this.form));
      if (this.closes) this.root.close();
    } catch (error) {
      if (error instanceof FieldError) this.refuseField(error);
      else if (error instanceof ApiError) this.refuse(error.message, this.form);
      else throw error;
    } finally {
      if (control) control.disabled = false;
    }
  }

  private check(): void {
    for (const each of this.form.querySelectorAll("input"))
      if (!each.validity.valid) throw new FieldError(each.name, each.dataset["refusal"] ?? each.validationMessage);
  }

  private accept(): void {
    part(this.form, "problem").hidden = true;
    for (const each of this.form.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  }

  private refuseField({ field, message }: FieldError): void {
    const found = must<HTMLInputElement>(this.form, `[name="${field}"]`);
    found.closest("details")?.setAttribute("open", "");
    this.refuse(message, found.parentElement ?? this.form);
    found.setAttribute("aria-invalid", "true");
    found.setAttribute("aria-errormessage", part(this.form, "problem").id);
    found.focus();
  }

  /** Say it at the end of `place`. */
  private refuse(text: string, place: HTMLElement): void {
    const problem = part(this.form, "problem");
    place.append(problem);
    problem.textContent = text;
    problem.hidden = false;
  }
}
