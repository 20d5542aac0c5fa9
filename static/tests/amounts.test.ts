import assert from "node:assert/strict";
import { test } from "node:test";
import { amountOf } from "../src/amounts";

test("an amount is what a person means; what is none stays as it is, for the server to refuse", () => {
  const rows: [string, string, number | string][] = [
    ["5", "micros", 5_000_000], ["12.34", "micros", 12_340_000], ["0.1", "micros", 100_000], ["0", "micros", 0], ["1,500", "tokens", 1500],
    ["2 000 000", "tokens", 2_000_000], ["1.5", "tokens", 1.5], ["", "tokens", ""], ["much", "micros", "much"], ["-1", "tokens", -1],
  ];
  for (const [written, unit, amount] of rows) assert.equal(amountOf(written, unit), amount);
});
