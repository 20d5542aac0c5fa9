/** Brings the parts of a page up to date that the server renders: it renders them once more, and only they are exchanged. */

import { request } from "./api";
import { localiseTimes } from "./moments";

/** What the server renders at `path`, as a document that runs nothing. Rejects with ApiError. */
export async function loadPage(path: string): Promise<Document> {
  const response = await request(path, { headers: { accept: "text/html" } });
  // Nobody is logged in any more, and what came is the login: the page itself is led there, and back.
  if (response.redirected) location.reload();
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** Exchange every `[data-live]` of this page for the one of the same name at `path`; what has not changed stays, and so does the focus. */
export async function refresh(path: string = location.pathname + location.search): Promise<void> {
  const fresh = await loadPage(path);
  for (const old of document.querySelectorAll<HTMLElement>("[data-live]")) {
    const found = fresh.querySelector<HTMLElement>(`[data-live="${old.dataset["live"] ?? ""}"]`);
    if (found) exchange(old, found);
  }
}

/** Give `old` the content of `fresh`. */
export function exchange(old: HTMLElement, fresh: HTMLElement): void {
  localiseTimes(fresh);
  if (old.innerHTML === fresh.innerHTML) return;
  const focused = old.contains(document.activeElement) ? (document.activeElement?.id ?? "") : "";
  const open = [...old.querySelectorAll("details")].map((each) => each.open);
  old.replaceChildren(...fresh.childNodes);
  old.querySelectorAll("details").forEach((each, index) => {
    each.open = open[index] ?? each.open;
  });
  if (focused) document.getElementById(focused)?.focus();
}
