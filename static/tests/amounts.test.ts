import assert from "node:assert/strict";
import { test } from "node:test";
import { amountOf } from "../src/amounts";

test("an amount is digits, and a point where it is money; what is anything else is none", () => {
  const rows: [string, string, number | null][] = [
    ["5", "micros", 5_000_000], ["12.34", "micros", 12_340_000], ["0.1", "micros", 100_000], ["0", "micros", 0], [" 1500 ", "tokens", 1500],
    ["9007199254.740991", "micros", 9_007_199_254_740_991], ["9007199254.740992", "micros", null], ["0.0000001", "micros", null],
    ["1,5", "micros", null], ["1,500", "tokens", null], ["2 000 000", "tokens", null], ["1_000", "tokens", null], ["1.5", "tokens", null],
    ["", "tokens", null], ["", "micros", null], ["much", "micros", null], ["-1", "tokens", null], ["1e3", "micros", null], ["0x10", "tokens", null],
  ];
  for (const [written, unit, amount] of rows) assert.equal(amountOf(written, unit), amount, `${written} ${unit}`);
});
