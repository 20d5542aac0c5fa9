/** Amounts of budgets, as people write them. Pure. */

const MICROS_PER_UNIT = 1_000_000;

/** What a person wrote, as the API wants it: tokens, or micro-units of the currency. What is no number stays text, which the API refuses. */
export function amountOf(written: string, unit: string): number | string {
  const value = Number(written.replaceAll(/[\s,_]/g, ""));
  if (!written.trim() || !Number.isFinite(value)) return written;
  return unit === "micros" ? Math.round(value * MICROS_PER_UNIT) : value;
}
