import assert from "node:assert/strict";
import { test } from "node:test";
import { instanceFor, modelOptions } from "../src/models";
import { mergeHistory } from "../src/timeline";
import type { HistoryEntry, LlamaModel, LlamaServiceState } from "../src/types";
import { type Action, actionRules, headlineOf, summarise, toneOf, turnText, whyNotReady } from "../src/words";
import { statusOf } from "./statuses";

const crashed = statusOf({ status: "crashed", headline: "crashed — killed by signal 9 — retry 1/5", nextRetryAt: 10_000, retries: 1 });

test("the headline counts down to the next try", () => {
  assert.equal(headlineOf(crashed, 9_000), "crashed — killed by signal 9 — retry 1/5 in 1 s");
  assert.equal(headlineOf(crashed, 11_000), "crashed — killed by signal 9 — retry 1/5 now");
  assert.equal(headlineOf(statusOf(), 0), "ready");
});

test("each state has the buttons that the state machine takes, and the others say why not", () => {
  const table: Record<LlamaServiceState, Action[]> = {
    initial: ["start"],
    starting: ["stop", "restart"],
    ready: ["stop", "restart"],
    crashed: ["start", "stop", "restart"],
    error: ["start", "stop", "restart"],
    stopping: [],
  };
  for (const [state, expected] of Object.entries(table) as [LlamaServiceState, Action[]][]) {
    const rules = actionRules(statusOf({ status: state }));
    const enabled = (Object.keys(rules) as Action[]).filter((action) => rules[action].enabled);
    assert.deepEqual(enabled, expected, state);
    for (const rule of Object.values(rules)) assert.match(rule.title, rule.enabled ? /demo/ : /^Cannot .*: demo is /);
  }
});

test("stopping an adopted server says that it keeps running", () => {
  assert.match(actionRules(statusOf({ adopted: true })).stop.title, /keeps running/);
});

test("the summary names what is wrong first", () => {
  const starting = statusOf({ instance: "other", status: "starting" });
  assert.equal(summarise([]).title, "Nothing to supervise yet");
  assert.deepEqual(summarise([statusOf()]), { tone: "good", title: "All is well", detail: "demo is ready." });
  assert.equal(summarise([statusOf(), crashed]).title, "demo crashed and is coming back");
  assert.equal(summarise([crashed, statusOf({ status: "error" })]).title, "2 instances need attention");
  assert.deepEqual(summarise([statusOf(), starting]), { tone: "busy", title: "other is starting", detail: "1 of 2 instances ready" });
  assert.equal(summarise([statusOf(), statusOf({ status: "initial" })]).title, "All that should run, runs");
  assert.equal(summarise([statusOf({ status: "initial" })]).title, "Nothing is running");
});

test("colours by state", () => {
  assert.equal(toneOf("ready"), "good");
  assert.equal(toneOf("initial"), "idle");
  assert.equal(toneOf("stopping"), "warn");
  assert.equal(toneOf("error"), "bad");
});

test("why it is not ready holds no figure that ages", () => {
  assert.equal(whyNotReady(statusOf()), "");
  assert.equal(whyNotReady(crashed), "demo crashed — killed by signal 9 — retry 1/5");
  assert.equal(whyNotReady(statusOf({ status: "error", headline: "error — no such binary" })), "demo cannot run — no such binary");
  assert.equal(whyNotReady(statusOf({ status: "initial" })), "demo is not running");
  assert.equal(whyNotReady(statusOf({ status: "starting", headline: "starting — loading, 43%" })), "demo is starting — loading, 43%");
});

test("a history keeps one entry for each stay in a state, with its begin and its last words", () => {
  const entry = (stateSeq: number, status: LlamaServiceState, timestamp: number, headline: string = status): HistoryEntry => ({
    stateSeq,
    status,
    timestamp,
    headline,
    reason: null,
  });
  const known = [entry(0, "initial", 1), entry(1, "starting", 2), entry(5, "starting", 7)];
  const missed = [entry(2, "ready", 4), entry(3, "crashed", 5), entry(5, "starting", 6, "starting — loading, 80%"), entry(0, "initial", 1)];
  assert.deepEqual(mergeHistory(known, missed), [
    entry(0, "initial", 1),
    entry(1, "starting", 2),
    entry(2, "ready", 4),
    entry(3, "crashed", 5),
    entry(5, "starting", 6, "starting — loading, 80%"),
  ]);
});

test("a choice is an instance, or a model of one that serves several", () => {
  const model = (id: string): LlamaModel => ({ id, name: id, size: 1, type: "gguf", modified_at: 0 });
  const router = statusOf({ instance: "router", status: "starting", models: [model("a"), model("b")] });
  const single = statusOf({ models: [model("tiny")] });
  assert.deepEqual(modelOptions([single, router]).map(({ value }) => value), ["demo", "router", "a", "b"]);
  assert.equal(modelOptions([router])[0]?.label, "router (starting)");
  assert.equal(instanceFor("b", [single, router], "demo")?.instance, "router");
  assert.equal(instanceFor("tiny", [single, router], "demo")?.instance, "demo");
  assert.equal(instanceFor("", [single, router], "demo")?.instance, "demo");
  assert.equal(instanceFor("unknown", [single, router], "demo"), undefined);
});

test("a place in line, in words", () => {
  const rows: [number, number | null, LlamaServiceState, number | null, string][] = [
    [1, null, "ready", null, "next in line"], [1, 0.4, "ready", null, "next in line"], [3, 12.3, "ready", null, "3rd in line, about 12 s"], [22, 0, "ready", null, "22nd in line"],
    [112, 0, "ready", null, "112th in line"], [1, 0, "starting", 0.6, "the model is loading, 60 %"],
    [2, 0, "initial", null, "the model is loading; 2nd in line"],
  ];
  for (const [position, seconds, state, progress, text] of rows) {
    assert.equal(turnText({ position, estimate_seconds: seconds, state, progress, reason: null }), text);
  }
  const lack = { state: "initial" as const, estimate_seconds: null, progress: null, reason: "group g has no place left, 1 busy" };
  assert.equal(turnText({ position: 1, ...lack }), "the model is not loaded yet: group g has no place left, 1 busy");
});
