/** Values for people. Pure; all texts are English and carry their unit. */

const BYTE_UNITS = ["kB", "MB", "GB", "TB", "PB"] as const;
const COUNT_UNITS = ["", " K", " M", " B", " T"] as const;
const SECONDS_PER_MINUTE = 60;
const SECONDS_PER_HOUR = 3_600;
const SECONDS_PER_DAY = 86_400;
const JUST_NOW_SECONDS = 2;

/** `1.1 MB`; decimal units, as the server's first paint writes them. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes) || bytes < 0) return "–";
  if (bytes < 1000) return bytes === 1 ? "1 Byte" : `${Math.trunc(bytes)} Bytes`;
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** `8.03 B` parameters, `32.8 K` tokens: three significant digits. */
export function formatCount(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < COUNT_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
  return `${digits}${COUNT_UNITS[unit]}`;
}

/** `12,345`. */
export function formatInteger(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** `12 s`, `3 min 5 s`, `2 h 14 min`, `3 d 4 h`: two units at most. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < SECONDS_PER_MINUTE) return `${whole} s`;
  if (whole < SECONDS_PER_HOUR) return twoUnits(whole, SECONDS_PER_MINUTE, "min", 1, "s");
  if (whole < SECONDS_PER_DAY) return twoUnits(whole, SECONDS_PER_HOUR, "h", SECONDS_PER_MINUTE, "min");
  return twoUnits(whole, SECONDS_PER_DAY, "d", SECONDS_PER_HOUR, "h");
}

function twoUnits(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((seconds % large) / small);
  const head = `${Math.floor(seconds / large)} ${largeName}`;
  return rest === 0 ? head : `${head} ${rest} ${smallName}`;
}

/** `in 4 s` until a moment that lies `milliseconds` ahead; `now` when it has come. */
export function formatCountdown(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  return seconds <= 0 ? "now" : `in ${formatDuration(seconds)}`;
}

/** `just now`, `12 s ago`, `3 min ago`. */
export function formatAge(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  return seconds < JUST_NOW_SECONDS ? "just now" : `${formatDuration(seconds)} ago`;
}

/** `14:03:27` in the reader's time zone. */
export function formatClock(unixMilliseconds: number): string {
  return new Date(unixMilliseconds).toLocaleTimeString("en-GB", { hour12: false });
}

/** `43 %`. */
export function formatPercent(fraction: number): string {
  return `${Math.round(Math.min(1, Math.max(0, fraction)) * 100)} %`;
}

/** A rate or average: one decimal below 100, none above; a dash when it is not known. */
export function formatDecimal(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value < 99.95 ? value.toFixed(1) : formatInteger(value);
}

/** `1 token`, `2 tokens`. */
export function plural(count: number, noun: string): string {
  return `${formatInteger(count)} ${noun}${count === 1 ? "" : "s"}`;
}
