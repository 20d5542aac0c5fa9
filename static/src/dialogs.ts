/** The dialogs of a page, each a `<dialog data-dialog="NAME">` with a form: opened, sent, closed; a refusal is shown where it was caused. */

import { ApiError } from "./api";
import { must, part } from "./dom";

/** What sending a form does; an ApiError that it rejects with is shown in the dialog, which then stays open. */
export type Send = (fields: FormData) => Promise<unknown>;

/** One dialog of the page. */
export class FormDialog {
  readonly root: HTMLDialogElement;
  readonly form: HTMLFormElement;
  private send: Send = () => Promise.resolve();

  /** `closes`: whether it is closed when its form was sent. */
  constructor(
    name: string,
    private readonly closes = true,
  ) {
    this.root = must<HTMLDialogElement>(document, `[data-dialog="${name}"]`);
    this.form = part<HTMLFormElement>(this.root, "form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    for (const each of this.root.querySelectorAll("[data-close]")) each.addEventListener("click", () => this.root.close());
    // The buttons come and go with the parts of the page that they stand in.
    document.addEventListener("click", ({ target }) => {
      if (target instanceof Element && target.closest(`[data-open="${name}"]`)) this.open(this.send);
    });
  }

  /** Show it, empty. */
  open(send: Send): void {
    this.send = send;
    this.form.reset();
    this.refuse(null);
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
      await this.send(new FormData(this.form));
      if (this.closes) this.root.close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refuse(error.message);
    } finally {
      if (control) control.disabled = false;
    }
  }

  private refuse(text: string | null): void {
    const problem = part(this.form, "problem");
    problem.hidden = text === null;
    problem.textContent = text ?? "";
  }
}
