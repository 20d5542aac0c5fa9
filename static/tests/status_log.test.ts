import assert from "node:assert/strict";
import { test } from "node:test";
import { StatusLog } from "../src/status_log";
import { eventOf, pictureOf, statusOf } from "./statuses";

test("the first event names the default instance", () => {
  const log = new StatusLog();
  assert.equal(log.apply(eventOf(7), 0), "applied");
  assert.equal(log.get()?.instance, "demo");
  assert.equal(log.seq, 7);
});

test("a missing number is a gap, and the event counts all the same", () => {
  const log = new StatusLog();
  log.apply(eventOf(1), 0);
  assert.equal(log.apply(eventOf(2, { status: "crashed" }), 0), "applied");
  assert.equal(log.apply(eventOf(4, { status: "starting" }), 0), "gap");
  assert.equal(log.get()?.status, "starting");
});

test("an older event of the same instance changes nothing, one of another instance does", () => {
  const log = new StatusLog();
  log.apply(eventOf(1), 0);
  log.apply(eventOf(5, { status: "starting" }), 0);
  assert.equal(log.apply(eventOf(3, { status: "crashed" }), 0), "stale");
  assert.equal(log.get()?.status, "starting");
  assert.equal(log.apply(eventOf(4, { instance: "other" }), 0), "applied");
  assert.equal(log.seq, 5);
});

test("a new epoch begins anew, with lower numbers too", () => {
  const log = new StatusLog();
  log.apply(eventOf(90), 0);
  log.apply(eventOf(91, { instance: "gone" }), 0);
  assert.equal(log.apply(eventOf(2, { status: "starting" }, { epoch: "e2" }), 0), "new-epoch");
  assert.equal(log.seq, 2);
  assert.equal(log.get("gone")?.status, "ready", "kept on show until the picture comes");
  assert.equal(log.replaceAll(pictureOf(3, [statusOf()], { epoch: "e2" }), 0), true);
  assert.equal(log.get("gone"), undefined);
});

test("a picture older than what is known is refused", () => {
  const log = new StatusLog();
  log.apply(eventOf(9, { status: "crashed" }), 0);
  assert.equal(log.replaceAll(pictureOf(8, [statusOf()]), 0), false);
  assert.equal(log.get()?.status, "crashed");
});

test("the clock's offset is that of the message that was least late", () => {
  const log = new StatusLog();
  log.apply(eventOf(1, {}, { timestamp: 5_000 }), 1_000);
  assert.equal(log.clockOffset, 4_000);
  log.observeClock(6_000, 9_000);
  assert.equal(log.clockOffset, 4_000);
  log.observeClock(14_500, 10_000);
  assert.equal(log.clockOffset, 4_500);
  log.forgetClock();
  log.observeClock(11_000, 11_000);
  assert.equal(log.clockOffset, 0);
});
