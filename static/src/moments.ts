/** The server writes times in UTC; the reader sees them in a time zone of their own. */

const SHOWN: Intl.DateTimeFormatOptions = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false };

/** Every `<time datetime>` below `root` in the reader's own time; the title has the exact moment. */
export function localiseTimes(root: ParentNode): void {
  for (const each of root.querySelectorAll("time")) {
    const moment = new Date(each.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const seconds = "seconds" in each.dataset ? ({ second: "2-digit" } as const) : {};
    each.textContent = shown(moment, seconds);
    each.title = moment.toISOString();
  }
}

/** A time of the server's as `localiseTimes` shows it. */
export function momentText(iso: string): string {
  return shown(new Date(iso), {});
}

function shown(moment: Date, more: Intl.DateTimeFormatOptions): string {
  const year = moment.getFullYear() === new Date().getFullYear() ? {} : ({ year: "numeric" } as const);
  return moment.toLocaleString("en-GB", { ...SHOWN, ...year, ...more });
}
