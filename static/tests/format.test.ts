import assert from "node:assert/strict";
import { test } from "node:test";
import { niceCeiling, Series } from "../src/charts";
import { formatAge, formatBytes, formatCount, formatCountdown, formatDecimal, formatDuration, formatPercent, plural } from "../src/format";

test("bytes are decimal, like the server's first paint", () => {
  const rows: [number, string][] = [
    [0, "0 Bytes"], [1, "1 Byte"], [999, "999 Bytes"], [1000, "1.0 kB"], [1_080_321, "1.1 MB"], [8_709_518_112, "8.7 GB"], [-1, "–"], [Number.NaN, "–"],
  ];
  for (const [value, text] of rows) assert.equal(formatBytes(value), text);
});

test("durations have two units at most", () => {
  const rows: [number, string][] = [
    [-3, "0 s"], [0.9, "0 s"], [59.9, "59 s"], [60, "1 min"], [65, "1 min 5 s"], [3600, "1 h"], [3661, "1 h 1 min"], [90_000, "1 d 1 h"],
  ];
  for (const [value, text] of rows) assert.equal(formatDuration(value), text);
});

test("a countdown ends with now and never skips its last second", () => {
  const rows: [number, string][] = [[1000, "in 1 s"], [1, "in 1 s"], [1001, "in 2 s"], [0, "now"], [-5000, "now"], [61_000, "in 1 min 1 s"]];
  for (const [value, text] of rows) assert.equal(formatCountdown(value), text);
});

test("counts have three significant digits", () => {
  const rows: [number, string][] = [[512, "512"], [1024, "1.02 K"], [1_049_088, "1.05 M"], [8_190_735_360, "8.19 B"], [999_999, "1 M"]];
  for (const [value, text] of rows) assert.equal(formatCount(value), text);
});

test("other figures", () => {
  assert.equal(formatAge(1500), "just now");
  assert.equal(formatAge(12_000), "12 s ago");
  assert.equal(formatPercent(1.7), "100 %");
  assert.equal(formatDecimal(null), "–");
  assert.equal(formatDecimal(42.25), "42.3");
  assert.equal(formatDecimal(9876.5), "9,877");
  assert.equal(plural(1, "token"), "1 token");
  assert.equal(plural(1200, "token"), "1,200 tokens");
});

test("the axis ends at a round number with a round half", () => {
  const rows: [number, number][] = [[0, 2], [1.5, 2], [3, 4], [5, 10], [11, 20], [35, 40], [41, 100], [9800, 10_000], [Number.NaN, 2]];
  for (const [value, ceiling] of rows) assert.equal(niceCeiling(value), ceiling);
});

test("a series is bounded, ordered, and broken where nothing was heard", () => {
  const series = new Series();
  series.push(10, 1);
  series.push(12, 2);
  series.push(12, 9);
  series.push(30, 3);
  assert.deepEqual(series.times, [10, 12, 14, 30]);
  assert.deepEqual(series.values, [1, 2, null, 3]);
  for (let time = 32; time < 2000; time += 2) series.push(time, 0);
  assert.equal(series.times.length, 150);
  assert.equal(series.times.at(-1), 1998);
});
