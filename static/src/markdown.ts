/**
 * Markdown from a model, as document fragments that can do no harm: no HTML of the author's passes, what is left is sanitised again, and
 * images are shown as links, because fetching one would tell its server what is being read.
 */

import DOMPurify from "dompurify";
import MarkdownIt, { type Env, type MarkdownIt as Parser, type Token } from "markdown-it";
import { bindCopy, button, el } from "./dom";

const ALLOWED_TAGS = [
  "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong", "table",
  "tbody", "td", "th", "thead", "tr", "ul",
];
const ALLOWED_ATTRIBUTES = ["class", "href", "rel", "start", "target", "title"];

const markdown = makeParser();

function makeParser(): Parser {
  const parser = new MarkdownIt({ html: false, linkify: true, breaks: false });
  const rules = parser.renderer.rules;
  const plain = parser.renderer.renderToken.bind(parser.renderer);
  rules["link_open"] = (tokens, index, options) => {
    tokens[index]?.attrSet("rel", "noopener noreferrer nofollow");
    tokens[index]?.attrSet("target", "_blank");
    return plain(tokens, index, options);
  };
  rules["image"] = (tokens, index) => {
    const source = parser.utils.escapeHtml(String(tokens[index]?.attrGet("src") ?? ""));
    const label = parser.utils.escapeHtml(tokens[index]?.content || "image");
    return `<a href="${source}" rel="noopener noreferrer nofollow" target="_blank">${label}</a>`;
  };
  // Alignment comes as a style attribute, which the content policy forbids.
  rules["th_open"] = rules["td_open"] = (tokens, index, options) => {
    const token = tokens[index];
    const side = /text-align:(\w+)/.exec(String(token?.attrGet("style") ?? ""))?.[1];
    if (token) token.attrs = side ? [["class", `align-${side}`]] : null;
    return plain(tokens, index, options);
  };
  return parser;
}

/** The text as nodes for the page; `environment` holds the definitions (`[name]: address`) that its parts share. */
export function renderMarkdown(text: string, environment: Env = {}): DocumentFragment {
  const html = markdown.render(text, environment);
  const fragment = DOMPurify.sanitize(html, { ALLOWED_TAGS, ALLOWED_ATTR: ALLOWED_ATTRIBUTES, RETURN_DOM_FRAGMENT: true });
  for (const block of fragment.querySelectorAll("pre")) frameCode(block);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = el("div", { class: "table-frame", tabindex: 0, role: "group", "aria-label": "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function frameCode(block: HTMLPreElement): void {
  const language = /language-(\S+)/.exec(block.firstElementChild?.className ?? "")?.[1] ?? "";
  const copy = button("Copy the code", "copy", { class: "quiet small", iconOnly: true });
  bindCopy(copy, () => (block.textContent ?? "").replace(/\n$/, ""));
  const frame = el("div", { class: "code" }, el("div", { class: "code-head" }, el("span", {}, language), copy));
  block.setAttribute("tabindex", "0");
  block.replaceWith(frame);
  frame.append(block);
}

/**
 * Where the last top-level block of `text` begins: what lies before it can never change, whatever follows. 0 when there is one block only.
 * Only complete lines count, for half a line may still become anything.
 */
export function stableLength(text: string): number {
  const complete = text.slice(0, text.lastIndexOf("\n") + 1);
  const starts = markdown
    .parse(complete, {})
    .filter((token: Token) => token.level === 0 && token.map !== null && token.nesting >= 0)
    .map((token: Token) => token.map?.[0] ?? 0);
  const last = starts.at(-1);
  if (starts.length < 2 || last === undefined) return 0;
  let offset = 0;
  for (let line = 0; line < last; line += 1) offset = complete.indexOf("\n", offset) + 1;
  return offset;
}

/** Renders a text that grows, at a cost that does not grow with it: blocks that are closed are rendered once. */
export class LiveMarkdown {
  private frozen = "";
  private environment: Env = {};
  private liveNodes: ChildNode[] = [];

  constructor(private readonly container: HTMLElement) {}

  /** Show `text`, which normally begins with what was shown before. */
  update(text: string): void {
    if (!text.startsWith(this.frozen)) this.reset();
    const rest = text.slice(this.frozen.length);
    const stable = stableLength(rest);
    this.dropLive();
    if (stable > 0) {
      this.container.append(renderMarkdown(rest.slice(0, stable), this.environment));
      this.frozen += rest.slice(0, stable);
    }
    const live = renderMarkdown(rest.slice(stable), this.environment);
    this.liveNodes = [...live.childNodes];
    this.container.append(live);
  }

  /** The text is complete. Definitions may have come after their use; then all of it is rendered again. */
  finish(text: string): void {
    this.update(text);
    if (Object.keys(this.environment.references ?? {}).length === 0) return;
    this.container.replaceChildren(renderMarkdown(text));
    this.liveNodes = [...this.container.childNodes];
    this.frozen = "";
  }

  private reset(): void {
    this.container.replaceChildren();
    this.liveNodes = [];
    this.frozen = "";
    this.environment = {};
  }

  private dropLive(): void {
    for (const node of this.liveNodes) node.remove();
    this.liveNodes = [];
  }
}
