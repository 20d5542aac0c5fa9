/** Amounts of budgets, as people write them. Pure. */

const DIGITS_AFTER_THE_POINT = 6;
const TOKENS = /^(\d+)$/;
/** With a comma nobody knows: 1,5 is one and a half to one, and fifteen hundred is 1,500 to another. */
const MONEY = /^(\d+)(?:\.(\d{1,6}))?$/;

/** What a person wrote, as the API wants it: tokens, or micro-units of the currency. Null when it is no plain amount of the unit. */
export function amountOf(written: string, unit: string): number | null {
  const found = (unit === "micros" ? MONEY : TOKENS).exec(written.trim());
  if (!found) return null;
  const [, whole = "", fraction = ""] = found;
  const amount = Number(unit === "micros" ? whole + fraction.padEnd(DIGITS_AFTER_THE_POINT, "0") : whole);
  return Number.isSafeInteger(amount) ? amount : null;
}
