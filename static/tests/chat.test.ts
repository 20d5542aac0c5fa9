import assert from "node:assert/strict";
import { test } from "node:test";
import { problemWith, reviveSettings } from "../src/chat_settings";
import { anotherAnswer, assistantTurn, bounded, messagesFor, revive, shownAnswer, type Turn, userTurn } from "../src/chat_state";
import { AnswerReader, readAnswer } from "../src/chat_stream";
import { stableLength } from "../src/markdown";

function reading(...data: string[]): AnswerReader {
  let clock = 0;
  const reader = new AnswerReader(() => (clock += 100));
  for (const each of data) if (!reader.take(each)) break;
  return reader;
}

const piece = (content: string): string => JSON.stringify({ choices: [{ delta: { content }, finish_reason: null }] });

function answered(question: string, text: string): Turn[] {
  const turn = assistantTurn("demo");
  Object.assign(shownAnswer(turn), { text, status: "done" });
  return [userTurn(question), turn];
}

test("an answer is complete with [DONE], and only then", () => {
  assert.equal(reading(piece("Hel"), piece("lo")).isComplete, false);
  const whole = reading(piece("Hel"), piece("lo"), '{"choices":[{"delta":{},"finish_reason":"length"}]}', "[DONE]");
  assert.equal(whole.isComplete, true);
  assert.equal(whole.text, "Hello");
  assert.equal(whole.finishReason, "length");
});

test("an error in the stream ends it, in the server's words", () => {
  const reader = reading(piece("Hel"), '{"error":{"message":"killed by signal 9","code":"engine_died"}}', piece("lo"), "[DONE]");
  assert.equal(reader.failure, "killed by signal 9");
  assert.equal(reader.text, "Hel");
  assert.equal(reader.isComplete, false);
});

test("what is no JSON is a failure too", () => {
  for (const data of ["{", '"text"', "null"]) assert.match(reading(data).failure ?? "", /no JSON/);
});

test("tokens are counted unless the server states them, and so is the rate", () => {
  const counted = reading(piece("a"), piece("b"), piece("c"));
  assert.equal(counted.tokens, 3);
  assert.equal(counted.tokensPerSecond, 10);
  const stated = reading(piece("a"), '{"choices":[],"usage":{"completion_tokens":12},"timings":{"predicted_n":9,"predicted_per_second":345.6}}');
  assert.equal(stated.tokens, 12);
  assert.equal(stated.tokensPerSecond, 345.6);
});

test("a body that breaks leaves the answer incomplete", async () => {
  const chunks = [`data: ${piece("par")}\n\n`];
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const chunk = chunks.shift();
      if (chunk) controller.enqueue(new TextEncoder().encode(chunk));
      else controller.error(new TypeError("network error"));
    },
  });
  const reader = new AnswerReader(() => 0);
  assert.equal(await readAnswer(body, reader, new AbortController().signal, () => undefined), false);
  assert.equal(reader.text, "par");
  assert.equal(reader.isComplete, false);
});

const told = (position: number): string => JSON.stringify({ position, estimate_seconds: 4, state: "ready", progress: null });

test("what a request waits for is no part of the answer, and over with the first token", () => {
  const reader = new AnswerReader(() => 0);
  assert.equal(reader.take(told(3), "llamavisor.waiting"), true);
  assert.equal(reader.waiting?.position, 3);
  reader.take(piece("Hello"));
  assert.equal(reader.waiting, null);
  assert.equal(reader.text, "Hello");
});

test("a failure in the line is a refusal; only what passes is asked again", () => {
  const rows: [string, string, number][] = [
    ["server_error", "queue_deadline", 503], ["server_error", "engine_died", 0], ["invalid_request_error", "cancelled", 0],
  ];
  for (const [type, code, status] of rows) {
    const reader = new AnswerReader(() => 0);
    reader.take(told(1), "llamavisor.waiting");
    reader.take(JSON.stringify({ error: { message: "no", type, code } }));
    assert.equal(reader.refusal?.status, status, code);
  }
  const late = reading(piece("Hel"), '{"error":{"message":"no","type":"server_error","code":"queue_deadline"}}');
  assert.equal(late.refusal, null);
});

test("the messages are the system prompt and the answers in sight", () => {
  const turns = [...answered("Hi", "Hello"), userTurn("And?"), assistantTurn("demo")];
  assert.deepEqual(messagesFor(turns, "Be brief."), [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello" },
    { role: "user", content: "And?" },
  ]);
  assert.equal(messagesFor(turns, "  ")[0]?.role, "user");
});

test("another answer keeps the earlier one, unless that is empty", () => {
  const turn = assistantTurn("demo");
  anotherAnswer(turn, "demo");
  assert.equal(turn.answers.length, 1);
  shownAnswer(turn).text = "partial";
  anotherAnswer(turn, "demo");
  assert.equal(turn.answers.length, 2);
  assert.equal(turn.shown, 1);
});

test("what was coming when the page closed comes back as cut", () => {
  const turn = assistantTurn("demo");
  Object.assign(shownAnswer(turn), { text: "par", status: "streaming" });
  const [revived] = revive(JSON.stringify([turn]));
  assert(revived?.role === "assistant");
  assert.equal(shownAnswer(revived).status, "cut");
  assert.equal(shownAnswer(revived).text, "par");
});

test("a damaged store gives an empty conversation", () => {
  for (const stored of [null, "", "{", "{}", '[{"role":"user"}]', '[{"id":"1","role":"assistant","answers":[]}]', "[null]"]) {
    assert.deepEqual(revive(stored), [], String(stored));
  }
});

test("the store is bounded: the oldest turns go, and it begins with a question", () => {
  const turns = [...answered("first", "x".repeat(400)), ...answered("second", "y".repeat(400))];
  const kept = bounded(turns, 800);
  assert.deepEqual(kept.map((turn) => turn.role), ["user", "assistant"]);
  assert.equal(kept[0], turns[2]);
  assert.deepEqual(bounded(turns, 10_000), turns);
});

test("settings are checked when typed and when recalled", () => {
  assert.equal(problemWith("temperature", "0"), null);
  assert.equal(problemWith("temperature", ""), null);
  assert.match(problemWith("temperature", "2.1") ?? "", /0 to 2/);
  assert.match(problemWith("top_k", "1.5") ?? "", /whole number/);
  assert.match(problemWith("max_tokens", "0") ?? "", /from 1/);
  const stored = JSON.stringify({ system: "Be brief.", sampling: { temperature: 0, top_p: 7, seed: "1", other: 3 } });
  assert.deepEqual(reviveSettings(stored), { system: "Be brief.", sampling: { temperature: 0 } });
  assert.deepEqual(reviveSettings("{"), { system: "", sampling: {} });
});

test("only blocks that nothing can change any more are stable", () => {
  assert.equal(stableLength("One paragraph"), 0);
  assert.equal(stableLength("One paragraph\n\nAnother"), 0);
  assert.equal(stableLength("One paragraph\n\nAnother\n"), "One paragraph\n\n".length);
  assert.equal(stableLength("* a\n\n* b\n\n  c\n"), 0);
  assert.equal(stableLength("```\nx\n\ny\n\nz\n"), 0);
});

test("cutting a text at its stable lengths loses nothing, wherever it stands still", () => {
  const text = "# Title\n\nText\n* a\n* b\n\n```py\nx\n\ny\n```\n| a | b |\n|--|--|\n| 1 | 2 |\n\n> q\n\nEnd\n";
  let frozen = "";
  for (let length = 1; length <= text.length; length += 1) {
    const rest = text.slice(frozen.length, length);
    const stable = stableLength(rest);
    assert(stable <= rest.length);
    frozen += rest.slice(0, stable);
    assert(text.startsWith(frozen));
  }
  assert.equal(frozen, text.slice(0, text.indexOf("End")));
});
