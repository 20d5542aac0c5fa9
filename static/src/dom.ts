/** Small helpers for the document. Texts are set as text, never as HTML. */

const SVG = "http://www.w3.org/2000/svg";

type Attributes = Record<string, string | number | boolean | null>;

/** A new element; an attribute that is null or false is left out, `true` is set empty. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string | null)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** One symbol of the sprite, hidden from assistive technology: what it means stands beside it or in a label. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${spriteUrl()}#${name}`);
  svg.append(use);
  return svg;
}

/** Change the symbol of an icon that `icon` or a template made. */
export function setIcon(svg: Element, name: string): void {
  svg.firstElementChild?.setAttribute("href", `${spriteUrl()}#${name}`);
}

function spriteUrl(): string {
  return document.documentElement.dataset["sprite"] ?? "/static/icons/sprite.svg";
}

/** A button with an icon and a label; `iconOnly` keeps the label for assistive technology and the tooltip. */
export function button(label: string, iconName: string, options: { class?: string; iconOnly?: boolean } = {}): HTMLButtonElement {
  const attributes: Attributes = { type: "button", class: `button ${options.class ?? ""}`.trim() };
  if (options.iconOnly) {
    return el("button", { ...attributes, class: `${attributes["class"]} square`, "aria-label": label, title: label }, icon(iconName));
  }
  return el("button", attributes, icon(iconName), el("span", {}, label));
}

/** The element that `selector` finds; a page without it is a mistake of ours. */
export function must<T extends Element = HTMLElement>(root: ParentNode, selector: string): T {
  const found = root.querySelector<T>(selector);
  if (!found) throw new Error(`The page has no ${selector}`);
  return found;
}

/** The element marked `data-part="name"`. */
export function part<T extends Element = HTMLElement>(root: ParentNode, name: string): T {
  return must<T>(root, `[data-part="${name}"]`);
}

/** Set the text only when it differs, so that selections and live regions are left in peace. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a text in which what stands between backquotes is code; a text with an odd one is shown as it is. */
export function setProse(element: HTMLElement, text: string): void {
  if (element.dataset["prose"] === text) return;
  element.dataset["prose"] = text;
  const parts = text.split("`");
  const isBalanced = parts.length % 2 === 1;
  element.replaceChildren(...(isBalanced ? parts.map((each, index) => (index % 2 === 1 ? el("code", {}, each) : each)) : [text]));
}

/** Set or remove an attribute only when it differs. */
export function setAttribute(element: Element, name: string, value: string | null): void {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

/** Say something to assistive technology through the page's live region. */
export function announce(text: string): void {
  const region = document.getElementById("announcer");
  if (region) region.textContent = text;
}

/** Copy text, also where the page is served without TLS and browsers withhold the clipboard API; whether it worked. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text: string): boolean {
  const area = el("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}

const COPIED_MILLISECONDS = 1_500;

/** Copy what `text` gives when `control` is pressed, and show on it that it was done. */
export function bindCopy(control: HTMLButtonElement, text: () => string): void {
  control.addEventListener("click", async () => {
    const copied = await copyText(text());
    const symbol = control.querySelector("svg");
    announce(copied ? "Copied" : "The browser did not allow copying");
    if (!symbol) return;
    setIcon(symbol, copied ? "check" : "alert");
    setTimeout(() => setIcon(symbol, "copy"), COPIED_MILLISECONDS);
  });
}

/** Calls `work` once per animation frame at most, however often it is asked; at once-a-second pace in a hidden page. */
export function perFrame(work: () => void): () => void {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    const run = (): void => {
      isAsked = false;
      work();
    };
    // Hidden pages have no frames, yet a stream must not pile up.
    if (document.hidden) setTimeout(run, 0);
    else requestAnimationFrame(run);
  };
}

/** What the server put into the page as a JSON data block. */
export function bootstrapData<T>(): T | null {
  const block = document.getElementById("bootstrap");
  return block?.textContent ? (JSON.parse(block.textContent) as T) : null;
}
