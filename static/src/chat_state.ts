/** A conversation as data: what was asked, what was answered, how each answer ended. Pure, but for the two functions that store it. */

/** How an answer stands. `cut` is one that broke off: it is never taken for a complete one. */
export type AnswerStatus = "waiting" | "streaming" | "done" | "stopped" | "cut" | "failed";

/** One answer; `note` says why it waits, was cut or failed. Rates in tokens a second. */
export interface Answer {
  text: string;
  reasoning: string;
  status: AnswerStatus;
  note: string | null;
  model: string;
  tokens: number;
  tokensPerSecond: number | null;
  reachedLimit: boolean;
}

/** What a person wrote. */
export interface UserTurn {
  id: string;
  role: "user";
  text: string;
}

/** What the model answered; a retry or another try adds an answer and keeps the earlier ones. */
export interface AssistantTurn {
  id: string;
  role: "assistant";
  answers: Answer[];
  shown: number;
}

export type Turn = UserTurn | AssistantTurn;

/** One message of the API. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** Why an answer was cut that was coming when the page was left. */
export const LEFT = "the page was closed or reloaded";

const KEY = "llamavisor.chat.v1";
/** Browsers grant some five million characters to all pages of an origin together. */
const MAX_STORED_CHARACTERS = 1_000_000;
const STATUSES: readonly string[] = ["waiting", "streaming", "done", "stopped", "cut", "failed"];

let counter = 0;

function newId(): string {
  counter += 1;
  return `t${Date.now().toString(36)}-${counter}`;
}

/** A question. */
export function userTurn(text: string): UserTurn {
  return { id: newId(), role: "user", text };
}

/** A turn for the answer of `model`, which has not begun. */
export function assistantTurn(model: string): AssistantTurn {
  return { id: newId(), role: "assistant", answers: [emptyAnswer(model)], shown: 0 };
}

/** An answer that has not begun. */
export function emptyAnswer(model: string): Answer {
  const nothing = { text: "", reasoning: "", note: null, tokens: 0, tokensPerSecond: null, reachedLimit: false };
  return { ...nothing, status: "waiting", model };
}

/** Begin another answer in the same turn; an empty one before it is replaced. */
export function anotherAnswer(turn: AssistantTurn, model: string): Answer {
  const fresh = emptyAnswer(model);
  turn.answers = [...turn.answers.filter((answer) => answer.text !== ""), fresh];
  turn.shown = turn.answers.length - 1;
  return fresh;
}

/** The answer in sight. */
export function shownAnswer(turn: AssistantTurn): Answer {
  const answer = turn.answers[turn.shown] ?? turn.answers[0];
  if (!answer) throw new Error("A turn without an answer");
  return answer;
}

/** Whether an answer is still to come or coming. */
export function isOpen(answer: Answer): boolean {
  return answer.status === "waiting" || answer.status === "streaming";
}

/** What to send so that the answer to the last question of `turns` comes; empty answers are left out. */
export function messagesFor(turns: readonly Turn[], system: string): ChatMessage[] {
  const messages: ChatMessage[] = system.trim() ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    const content = turn.role === "user" ? turn.text : shownAnswer(turn).text;
    if (content) messages.push({ role: turn.role, content });
  }
  return messages;
}

/** The newest turns that fit into the bound, beginning with a question. */
export function bounded(turns: readonly Turn[], maxCharacters: number = MAX_STORED_CHARACTERS): Turn[] {
  let size = 0;
  let first = turns.length;
  while (first > 0) {
    size += JSON.stringify(turns[first - 1]).length;
    if (size > maxCharacters) break;
    first -= 1;
  }
  const kept = turns.slice(first);
  return first > 0 && kept[0]?.role === "assistant" ? kept.slice(1) : kept;
}

/** Turns as they were stored, with answers that were still coming marked as cut; anything else gives no turns. */
export function revive(stored: string | null): Turn[] {
  let value: unknown;
  try {
    value = JSON.parse(stored ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(value) || !value.every(isTurn)) return [];
  for (const turn of value) if (turn.role === "assistant") turn.answers.forEach(settle);
  return value;
}

function settle(answer: Answer): void {
  if (!isOpen(answer)) return;
  answer.status = "cut";
  answer.note = LEFT;
}

function isTurn(value: unknown): value is Turn {
  const turn = value as Partial<UserTurn & Omit<AssistantTurn, "role">> & { role?: string };
  if (typeof turn !== "object" || turn === null || typeof turn.id !== "string") return false;
  if (turn.role === "user") return typeof turn.text === "string";
  if (turn.role !== "assistant" || !Array.isArray(turn.answers) || turn.answers.length === 0) return false;
  return turn.answers.every((answer) => typeof answer.text === "string" && STATUSES.includes(answer.status));
}

/** Remember the conversation over reloads, as far as the browser allows it. */
export function storeTurns(turns: readonly Turn[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(bounded(turns)));
  } catch {
    // Full or forbidden: the conversation then lasts as long as the page.
  }
}

/** The remembered conversation. */
export function loadTurns(): Turn[] {
  try {
    return revive(localStorage.getItem(KEY));
  } catch {
    return [];
  }
}
