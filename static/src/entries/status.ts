/** The status page: binds what the server rendered and keeps it live. */

import { InstanceCard } from "../card";
import { ConnectionIndicator } from "../connection";
import { bootstrapData, must, part, setAttribute, setIcon, setText } from "../dom";
import { formatClock } from "../format";
import { type Connection, type FleetSnapshot, type Picture, useLlamaStatus as store } from "../llama_status";
import { Traffic } from "../traffic";
import type { LlamaServiceStatus, MetricsEvent } from "../types";
import { summarise, type Summary, type Tone } from "../words";

const TICK_MILLISECONDS = 250;
const SUMMARY_ICONS: Record<Tone, string> = { good: "check", idle: "pulse", busy: "pulse", warn: "alert", bad: "alert" };

/** What stands on top when nobody tells how things are. */
function offlineSummary(lastMessageAt: number | null): Summary {
  const since = lastMessageAt === null ? "" : `, from ${formatClock(lastMessageAt)}`;
  return { tone: "warn", title: "No connection to Llamavisor", detail: `What follows is the last known state${since}.` };
}

class StatusPage {
  private readonly cards = new Map<string, InstanceCard>();
  private readonly list = part(document, "cards");
  private readonly indicator = new ConnectionIndicator(part(document, "connection"));
  private lastConnection: Connection = "connecting";

  readonly render = (): void => {
    const fleet = store.getFleet();
    this.syncCards(fleet.instances);
    this.renderSummary(fleet);
    part(document, "empty").hidden = fleet.instances.length > 0;
    part(document, "traffic").hidden = fleet.instances.length === 0;
    if (fleet.connection === "live" && this.lastConnection !== "live") this.reloadHistories();
    this.lastConnection = fleet.connection;
    this.indicator.update(fleet, Date.now());
  };

  readonly tick = (): void => {
    if (document.hidden) return;
    // What nobody tells any more does not go on either.
    if (store.getFleet().connection !== "offline") for (const card of this.cards.values()) card.tick();
    this.indicator.update(store.getFleet(), Date.now());
  };

  private reloadHistories(): void {
    if (this.lastConnection === "connecting") return;
    for (const card of this.cards.values()) card.startAnew();
  }

  private syncCards(instances: readonly LlamaServiceStatus[]): void {
    const names = new Set(instances.map((each) => each.instance));
    for (const [name, card] of this.cards) {
      if (names.has(name)) continue;
      card.remove();
      this.cards.delete(name);
    }
    for (const status of instances) this.syncCard(status);
  }

  private syncCard(status: LlamaServiceStatus): void {
    const card = this.cards.get(status.instance);
    if (card) card.update(status);
    else this.cards.set(status.instance, new InstanceCard(this.rootFor(status.instance), status, store.serverNow));
  }

  private rootFor(name: string): HTMLElement {
    const rendered = this.list.querySelector<HTMLElement>(`[data-instance="${CSS.escape(name)}"]`);
    if (rendered) return rendered;
    const template = must<HTMLTemplateElement>(document, "#card-template");
    const root = must(template.content, ".instance").cloneNode(true) as HTMLElement;
    this.list.insertBefore(root, part(document, "empty"));
    return root;
  }

  private renderSummary({ instances, connection, lastMessageAt }: FleetSnapshot): void {
    const isOffline = connection === "offline";
    const { tone, title, detail } = isOffline ? offlineSummary(lastMessageAt) : summarise(instances);
    this.list.classList.toggle("last-known", isOffline);
    const root = part(document, "summary");
    setAttribute(root, "data-tone", tone);
    setText(part(root, "summary-title"), title);
    setText(part(root, "summary-detail"), detail);
    setIcon(must(root, ".icon"), SUMMARY_ICONS[tone]);
    document.title = `${tone === "good" ? "" : `${title} · `}Status · Llamavisor`;
  }
}

function begin(): void {
  const data = bootstrapData<Picture & { timestamp: number | null }>();
  if (data) store.bootstrap({ ...data, timestamp: data.timestamp ?? Date.now() });
  const page = new StatusPage();
  const socket = store.getSocket();
  const traffic = new Traffic(part(document, "traffic"), () => {
    if (socket.connected) socket.emit("requestMetrics");
  });
  socket.on("metrics", (event: MetricsEvent) => {
    store.observe(event.timestamp);
    traffic.take(event);
  });
  socket.on("connect", () => socket.emit("requestMetrics"));
  store.subscribe(page.render);
  store.subscribeInstance("*");
  page.render();
  setInterval(page.tick, TICK_MILLISECONDS);
}

begin();
