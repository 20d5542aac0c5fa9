/** What the pages say about an instance. Pure. */

import { formatCountdown, formatDuration, formatPercent } from "./format";
import type { LlamaServiceState, LlamaServiceStatus } from "./types";

/** The colour family of a state. */
export type Tone = "good" | "idle" | "busy" | "warn" | "bad";

/** What a person can ask of an instance. */
export type Action = "start" | "stop" | "restart";

export const ACTIONS: readonly Action[] = ["start", "stop", "restart"];

/** Whether a button can be pressed, and a title that says what it does or why it cannot. */
export interface ActionRule {
  enabled: boolean;
  title: string;
}

const TONES: Record<LlamaServiceState, Tone> = {
  initial: "idle",
  starting: "busy",
  ready: "good",
  stopping: "warn",
  crashed: "bad",
  error: "bad",
};

const STARTABLE: readonly LlamaServiceState[] = ["initial", "crashed", "error"];
const STOPPABLE: readonly LlamaServiceState[] = ["starting", "ready", "crashed", "error"];

/** The colour family of `state`. */
export function toneOf(state: LlamaServiceState): Tone {
  return TONES[state] ?? "warn";
}

/** The sentence of the card, with the countdown to the next try; `serverNow` in unix milliseconds. */
export function headlineOf(status: LlamaServiceStatus, serverNow: number): string {
  if (status.status === "crashed" && status.nextRetryAt !== null) {
    return `${status.headline} ${formatCountdown(status.nextRetryAt - serverNow)}`;
  }
  return status.headline;
}

/** What the three buttons may do in the present state. */
export function actionRules(status: LlamaServiceStatus): Record<Action, ActionRule> {
  return { start: startRule(status), stop: stopRule(status), restart: restartRule(status) };
}

function startRule({ instance, status }: LlamaServiceStatus): ActionRule {
  if (STARTABLE.includes(status)) {
    return { enabled: true, title: status === "crashed" ? `Start ${instance} now, without waiting` : `Start ${instance}` };
  }
  return { enabled: false, title: `Cannot start: ${instance} is ${status}` };
}

function stopRule({ instance, status, adopted }: LlamaServiceStatus): ActionRule {
  if (!STOPPABLE.includes(status)) return { enabled: false, title: `Cannot stop: ${idleWords(instance, status)}` };
  if (adopted) return { enabled: true, title: `Let go of ${instance}; its server, which was not started here, keeps running` };
  if (status === "crashed" || status === "error") return { enabled: true, title: `Give up on ${instance}: no more tries` };
  return { enabled: true, title: `Stop ${instance}` };
}

function restartRule({ instance, status }: LlamaServiceStatus): ActionRule {
  if (STOPPABLE.includes(status)) return { enabled: true, title: `Stop ${instance}, then start it again` };
  return { enabled: false, title: `Cannot restart: ${idleWords(instance, status)}` };
}

function idleWords(instance: string, status: LlamaServiceState): string {
  return status === "initial" ? `${instance} is not running` : `${instance} is ${status}`;
}

/** The statement on top of the status page. */
export interface Summary {
  tone: Tone;
  title: string;
  detail: string;
}

/** "All is well", or what is not. */
export function summarise(instances: readonly LlamaServiceStatus[]): Summary {
  if (instances.length === 0) return { tone: "idle", title: "Nothing to supervise yet", detail: "No instance is configured." };
  const failed = instances.filter((each) => toneOf(each.status) === "bad");
  const ready = instances.filter((each) => each.status === "ready");
  const detail = readyWords(instances, ready.length);
  if (failed.length > 0) return { tone: "bad", title: failureTitle(failed), detail };
  const moving = instances.filter((each) => each.status === "starting" || each.status === "stopping");
  const first = moving[0];
  if (first) return { tone: toneOf(first.status), title: movingTitle(moving), detail };
  if (ready.length === instances.length) return { tone: "good", title: "All is well", detail };
  if (ready.length === 0) return { tone: "idle", title: "Nothing is running", detail };
  return { tone: "good", title: "All that should run, runs", detail };
}

/** What stands below the title when there is one instance; the first paint has the same. */
const ONLY_WORDS: Record<LlamaServiceState, (name: string) => string> = {
  initial: (name) => `Nobody has started ${name}, or it was stopped.`,
  starting: () => "It answers once its model is loaded.",
  ready: (name) => `${name} is ready.`,
  stopping: () => "It takes no new requests.",
  crashed: () => "It is started again by itself.",
  error: () => "It is not started again by itself; its card says what helps.",
};

function readyWords(instances: readonly LlamaServiceStatus[], ready: number): string {
  const only = instances.length === 1 ? instances[0] : undefined;
  return only ? ONLY_WORDS[only.status](only.instance) : `${ready} of ${instances.length} instances ready`;
}

function failureTitle(failed: readonly LlamaServiceStatus[]): string {
  const first = failed[0];
  if (failed.length > 1 || !first) return `${failed.length} instances need attention`;
  return first.status === "crashed" && first.nextRetryAt !== null
    ? `${first.instance} crashed and is coming back`
    : `${first.instance} needs attention`;
}

function movingTitle(moving: readonly LlamaServiceStatus[]): string {
  const first = moving[0];
  return moving.length === 1 && first ? `${first.instance} is ${first.status}` : `${moving.length} instances are changing`;
}

/** Why `status` cannot answer now, in a few words that stay true while time passes; empty when it can. */
export function whyNotReady(status: LlamaServiceStatus): string {
  const { instance, headline } = status;
  const more = headline.replace(/^\w+/, "");
  switch (status.status) {
    case "ready":
      return "";
    case "initial":
      return `${instance} is not running${more}`;
    case "crashed":
      return `${instance} ${headline}`;
    case "error":
      return `${instance} cannot run${more}`;
    default:
      return `${instance} is ${headline}`;
  }
}

/** What a waiting request is told: its place in line (1 is next), seconds (null: nobody knows), the model's state and load (0 to 1), why that has not begun. */
export interface Turn {
  position: number;
  estimate_seconds: number | null;
  state: LlamaServiceState;
  progress: number | null;
  reason: string | null;
}

/** `3rd in line, about 12 s`; `the model is loading, 60 %`. */
export function turnText({ position, estimate_seconds: seconds, state, progress, reason }: Turn): string {
  const place = position > 1 ? `${ordinal(position)} in line` : "next in line";
  if (state === "ready") return seconds !== null && seconds >= 1 ? `${place}, about ${formatDuration(seconds)}` : place;
  const loading = progress === null ? "the model is loading" : `the model is loading, ${formatPercent(progress)}`;
  const load = reason === null ? loading : `the model is not loaded yet: ${reason}`;
  return position > 1 ? `${load}; ${place}` : load;
}

/** `1st`, `2nd`, `3rd`, `11th`, `21st`. */
export function ordinal(value: number): string {
  const teen = value % 100 > 10 && value % 100 < 14;
  const ending = teen ? "th" : (["th", "st", "nd", "rd"][value % 10] ?? "th");
  return `${value}${ending}`;
}

/** Whether `state` passes by itself, so that waiting helps. */
export function passesByItself(state: LlamaServiceState): boolean {
  return state === "starting" || state === "crashed";
}

/** Whether a process of the instance exists in `state`; in the others its figures are those of the last one. */
export function hasProcess(state: LlamaServiceState): boolean {
  return state === "starting" || state === "ready" || state === "stopping";
}
