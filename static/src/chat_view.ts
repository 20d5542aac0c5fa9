/** The list of turns: drawn by difference, followed to its end unless the reader has scrolled up. */

import type { Turn } from "./chat_state";
import { el } from "./dom";
import { makeTurnView, type TurnActions, type TurnView, UserTurnView } from "./turn_view";

const AT_END_PIXELS = 48;

/** Shows the turns in `list`, inside the scrolling `frame`. */
export class ChatView {
  private readonly views = new Map<string, TurnView>();
  private isAtEnd = true;

  constructor(
    private readonly frame: HTMLElement,
    private readonly list: HTMLElement,
    private readonly jump: HTMLButtonElement,
    private readonly actions: TurnActions,
  ) {
    frame.addEventListener("scroll", () => this.onScroll(), { passive: true });
    jump.addEventListener("click", () => this.scrollToEnd());
    // Whatever grows, text or picture of it, the end stays in sight.
    new ResizeObserver(() => {
      if (this.isAtEnd) this.scrollToEnd();
    }).observe(list);
  }

  /** Bring the page to what `turns` says. */
  render(turns: readonly Turn[]): void {
    const ids = new Set(turns.map((turn) => turn.id));
    for (const [id, view] of this.views) {
      if (ids.has(id)) continue;
      view.root.parentElement?.remove();
      this.views.delete(id);
    }
    turns.forEach((turn, index) => this.viewOf(turn).update(index === turns.length - 1));
  }

  /** Draw one turn again. */
  update(turn: Turn, isLast: boolean): void {
    this.views.get(turn.id)?.update(isLast);
  }

  /** Open the editor of a question. */
  edit(turn: Turn): void {
    const view = this.views.get(turn.id);
    if (!(view instanceof UserTurnView)) return;
    view.edit();
    view.root.scrollIntoView({ block: "nearest" });
  }

  /** Follow the newest again. */
  scrollToEnd(): void {
    this.frame.scrollTop = this.frame.scrollHeight;
    this.isAtEnd = true;
    this.jump.hidden = true;
  }

  private viewOf(turn: Turn): TurnView {
    let view = this.views.get(turn.id);
    if (!view) {
      view = makeTurnView(turn, this.actions);
      this.views.set(turn.id, view);
      this.list.append(el("li", {}, view.root));
    }
    return view;
  }

  private onScroll(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.frame;
    this.isAtEnd = scrollHeight - scrollTop - clientHeight < AT_END_PIXELS;
    this.jump.hidden = this.isAtEnd;
  }
}
