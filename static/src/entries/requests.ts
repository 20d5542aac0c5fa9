/** The page on requests: keeps what is on its way live while somebody looks, cancels, and shows receipts. */

import { ApiError, request } from "../api";
import { FormDialog } from "../dialogs";
import { announce, must, part, setAttribute, setText } from "../dom";
import { formatClock } from "../format";
import { localiseTimes } from "../moments";
import { loadPage, refresh } from "../refresh";

const INTERVAL_MILLISECONDS = 1_000;
const IN_FLIGHT = "/requests/in-flight";

/** The ids of the requests that are shown as on their way. */
function idsInSight(): string[] {
  return [...document.querySelectorAll<HTMLElement>("[data-request]")].map((each) => each.dataset["request"] ?? "");
}

class LivePart {
  private readonly told = part(document, "live");
  private isAsking = false;
  private lastAt = Date.now();

  /** Ask once a second, while the page is in sight. */
  begin(): void {
    this.tell(null);
    setInterval(() => void this.look(), INTERVAL_MILLISECONDS);
    document.addEventListener("visibilitychange", () => void this.look());
  }

  /** Ask now; when requests have ended, for what became of them too. */
  async look(): Promise<void> {
    if (document.hidden || this.isAsking) return;
    this.isAsking = true;
    try {
      const before = idsInSight();
      await refresh(IN_FLIGHT);
      const now = new Set(idsInSight());
      if (before.some((id) => !now.has(id))) await refresh();
      this.lastAt = Date.now();
      this.tell(null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.tell(error);
    } finally {
      this.isAsking = false;
    }
  }

  private tell(error: ApiError | null): void {
    setAttribute(this.told, "data-tone", error ? "bad" : "good");
    setText(this.told, error ? `Not live: as it was at ${formatClock(this.lastAt)}` : "Live");
  }
}

function bindCancel(live: LivePart): void {
  // Who may change nothing has no dialog that asks.
  if (!document.querySelector('[data-dialog="confirm"]')) return;
  const confirm = new FormDialog("confirm");
  document.addEventListener("click", ({ target }) => {
    const control = target instanceof Element ? target.closest<HTMLElement>("[data-cancel]") : null;
    if (!control) return;
    const id = control.dataset["cancel"] ?? "";
    part(confirm.root, "confirm-text").textContent = `The request for ${control.dataset["name"] ?? ""} ends now; its client is told that it was cancelled, and what it used is booked.`;
    confirm.open(async () => {
      await cancel(id);
      await live.look();
    });
  });
}

async function cancel(id: string): Promise<void> {
  try {
    await request(`/v1/requests/in-flight/${encodeURIComponent(id)}`, { method: "DELETE" });
    announce("The request is cancelled");
  } catch (error) {
    // It has ended meanwhile: that is what was wanted.
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    announce("The request has ended already");
  }
}

function bindReceipts(): void {
  const dialog = part<HTMLDialogElement>(document, "receipt-dialog");
  const place = part(dialog, "receipt-place");
  for (const each of dialog.querySelectorAll("[data-close]")) each.addEventListener("click", () => dialog.close());
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest<HTMLAnchorElement>("a[data-receipt]") : null;
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    loadPage(link.href).then(
      (page) => {
        const receipt = must(page, '[data-part="receipt"]');
        localiseTimes(receipt);
        place.replaceChildren(receipt);
        part<HTMLAnchorElement>(dialog, "receipt-link").href = link.href;
        dialog.showModal();
      },
      // Its own page says what is wrong.
      () => location.assign(link.href),
    );
  });
}

function bindFilters(): void {
  const filters = document.querySelector<HTMLFormElement>('[data-part="filters"]');
  filters?.addEventListener("change", () => filters.requestSubmit());
}

function begin(): void {
  localiseTimes(document);
  if (!document.querySelector('[data-part="live"]')) return;
  const live = new LivePart();
  live.begin();
  bindCancel(live);
  bindReceipts();
  bindFilters();
}

begin();
