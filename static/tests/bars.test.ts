import assert from "node:assert/strict";
import { test } from "node:test";
import { roundCeiling, stacked, stepLabel } from "../src/bars";

test("what is seen of each bar is its own part", () => {
  assert.deepEqual(stacked([[1, 2], [10, 0], [100, 5]]), [[111, 7], [11, 2], [1, 2]]);
  assert.deepEqual(stacked([]), []);
});

test("steps are named as they are long, in UTC", () => {
  const midnight = Date.UTC(2026, 10, 21) / 1000;
  const rows: [number, number, string][] = [[midnight, 86_400, "21 Nov"], [midnight, 3_600, "21 Nov"], [midnight + 21_600, 21_600, "06:00"]];
  for (const [at, step, label] of rows) assert.equal(stepLabel(at, step), label);
});

test("the scale ends little above the most", () => {
  const rows: [number, number][] = [[0, 1], [Number.NaN, 1], [1, 1], [107_000, 120_000], [9, 10], [0.3, 0.3], [41, 50]];
  for (const [most, end] of rows) assert.equal(Math.abs(roundCeiling(most) - end) < 1e-9, true, `${most}`);
});
