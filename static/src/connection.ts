/** The connection indicator in the head of the pages. */

import { announce, part, setAttribute, setText } from "./dom";
import { formatAge } from "./format";
import type { Connection, FleetSnapshot } from "./llama_status";

const WORDS: Record<Connection, string> = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  offline: "Offline",
};

const ANNOUNCED: readonly Connection[] = ["reconnecting", "offline"];

/** Shows whether the page is live, and how old what it shows is. */
export class ConnectionIndicator {
  private shown: Connection = "connecting";

  constructor(private readonly root: HTMLElement) {}

  /** `now`: local unix time in milliseconds. */
  update({ connection, lastMessageAt }: FleetSnapshot, now: number): void {
    setAttribute(this.root, "data-connection", connection);
    setText(part(this.root, "connection-text"), WORDS[connection]);
    const last = lastMessageAt === null ? "" : `last update ${formatAge(now - lastMessageAt)}`;
    // A live connection on which nothing happens is no old news.
    setText(part(this.root, "connection-age"), connection === "live" ? "" : last);
    setAttribute(this.root, "title", last ? `${WORDS[connection]}: ${last}` : WORDS[connection]);
    this.tell(connection);
  }

  private tell(connection: Connection): void {
    if (connection === this.shown) return;
    if (ANNOUNCED.includes(connection)) announce(`Connection: ${WORDS[connection]}`);
    else if (ANNOUNCED.includes(this.shown)) announce("Connection: live again");
    this.shown = connection;
  }
}
