import assert from "node:assert/strict";
import { test } from "node:test";
import { readSse, type SseEvent, SseParser } from "../src/sse";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function parseCutAt(input: Uint8Array, ...cuts: number[]): SseEvent[] {
  const parser = new SseParser();
  const edges = [0, ...cuts, input.length];
  return edges.slice(1).flatMap((end, index) => parser.push(input.subarray(edges[index], end)));
}

const data = (text: string): SseEvent => ({ event: "message", data: text });

test("one event a blank line", () => {
  assert.deepEqual(parseCutAt(bytes("data: one\n\ndata: two\n\n")), [data("one"), data("two")]);
});

test("LF, CR and CRLF end lines, mixed too", () => {
  assert.deepEqual(parseCutAt(bytes("data: a\r\n\r\ndata: b\r\rdata: c\n\r\n")), [data("a"), data("b"), data("c")]);
});

test("several data lines are joined, one space after the colon is dropped", () => {
  assert.deepEqual(parseCutAt(bytes("data:one\ndata:  two\ndata\n\n")), [data("one\n two\n")]);
});

test("comments and unknown fields say nothing", () => {
  assert.deepEqual(parseCutAt(bytes(": keep-alive\n\nid: 7\nretry: 10\n\n:x\ndata: y\n\n")), [data("y")]);
});

test("a named event keeps its name for one event only", () => {
  assert.deepEqual(parseCutAt(bytes("event: log\ndata: 1\n\ndata: 2\n\n")), [{ event: "log", data: "1" }, data("2")]);
});

test("what no blank line follows is no event", () => {
  assert.deepEqual(parseCutAt(bytes("data: whole\n\ndata: cut")), [data("whole")]);
  assert.deepEqual(parseCutAt(bytes("data: whole\n\ndata: cut\n")), [data("whole")]);
});

test("a byte order mark is no part of the first field", () => {
  assert.deepEqual(parseCutAt(bytes("\uFEFFdata: x\n\n")), [data("x")]);
});

test("the result does not depend on where the network cuts", () => {
  const input = bytes('event: log\r\ndata: {"text":"Grüße, 世界 🦙"}\r\n\r\n: c\r\n\r\ndata: a\r\ndata: b\r\n\r\n');
  const whole = parseCutAt(input);
  assert.equal(whole.length, 2);
  for (let first = 0; first <= input.length; first += 1) {
    for (let second = first; second <= input.length; second += 1) {
      assert.deepEqual(parseCutAt(input, first, second), whole, `cut at ${first} and ${second}`);
    }
  }
});

test("a body is read event by event, and cancelled when its reader leaves", async () => {
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(bytes("data: 1\n\ndata: 2\n\n")),
    cancel: () => {
      isCancelled = true;
    },
  });
  for await (const event of readSse(body)) {
    assert.deepEqual(event, data("1"));
    break;
  }
  assert.equal(isCancelled, true);
});
