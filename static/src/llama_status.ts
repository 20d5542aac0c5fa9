/**
 * The live status of the server's instances as a store without a framework.
 *
 * `useLlamaStatus` tells about the default instance and fits React's `useSyncExternalStore(store.subscribe, store.getSnapshot)`. The
 * connection is made by the first subscriber and given up, with every listener, by the last.
 */

import { io, type Socket } from "socket.io-client";
import { type Picture, StatusLog } from "./status_log";
import type { LlamaModel, LlamaServiceState, LlamaServiceStatus, LlamaStatus, LlamaStatusEvent } from "./types";

export type * from "./types";
export type { Picture } from "./status_log";

/** `offline` means that the browser has no network, or that several tries in a row have failed. */
export type Connection = "connecting" | "live" | "reconnecting" | "offline";

/** Everything that is known, as one immutable value. `lastMessageAt` is local unix time in milliseconds. */
export interface FleetSnapshot {
  readonly instances: readonly LlamaServiceStatus[];
  readonly defaultName: string | null;
  readonly connection: Connection;
  readonly lastMessageAt: number | null;
  readonly clockOffset: number;
}

/** What the store needs from outside; tests give their own. */
export interface StoreOptions<S extends StatusSocket> {
  openSocket: () => S;
  loadPicture: () => Promise<Picture>;
  now: () => number;
}

// Socket.IO types its listeners so; narrower ones would not fit its sockets.
type Listener = (...values: any[]) => void;

/** The part of a Socket.IO socket that the store uses. */
export interface StatusSocket {
  readonly connected: boolean;
  on(event: string, listener: Listener): unknown;
  off(event: string, listener: Listener): unknown;
  emit(event: string, ...values: unknown[]): unknown;
  disconnect(): unknown;
}

const OFFLINE_AFTER_FAILURES = 3;
const RESYNC_INTERVAL_MILLISECONDS = 1_000;
const TICK_MILLISECONDS = 1_000;
const RECONNECT_DELAY_MILLISECONDS = 500;
const RECONNECT_DELAY_MAX_MILLISECONDS = 4_000;

const EMPTY: LlamaStatus = {
  status: "initial",
  models: [],
  lastError: null,
  retries: 0,
  uptime: 0,
  startedAt: null,
  isLoading: true,
};

/** See the module. All methods are bound, so that they can be handed on as functions. */
export class LlamaStatusStore<S extends StatusSocket = StatusSocket> {
  private readonly log = new StatusLog();
  private readonly listeners = new Set<() => void>();
  private readonly targets = new Map<string, number>();
  private socket: S | null = null;
  private connection: Connection = "connecting";
  private failures = 0;
  private lastMessageAt: number | null = null;
  private fleet: FleetSnapshot | null = null;
  private snapshot: LlamaStatus = EMPTY;
  private ticker: ReturnType<typeof setInterval> | null = null;
  private resyncTimer: ReturnType<typeof setTimeout> | null = null;
  private lastResyncAt = Number.NEGATIVE_INFINITY;

  constructor(private readonly options: StoreOptions<S>) {}

  get status(): LlamaServiceState {
    return this.getSnapshot().status;
  }
  get models(): LlamaModel[] {
    return this.getSnapshot().models;
  }
  get lastError(): string | null {
    return this.getSnapshot().lastError;
  }
  get retries(): number {
    return this.getSnapshot().retries;
  }
  get uptime(): number {
    return this.getSnapshot().uptime;
  }
  get startedAt(): string | null {
    return this.getSnapshot().startedAt;
  }
  get isLoading(): boolean {
    return this.getSnapshot().isLoading;
  }

  /** Call `listener` after every change, until the returned function is called. */
  readonly subscribe = (listener: () => void): (() => void) => {
    const own = (): void => listener();
    this.listeners.add(own);
    if (this.listeners.size === 1) this.open();
    return () => {
      if (this.listeners.delete(own) && this.listeners.size === 0) this.close();
    };
  };

  /** The default instance; the same object until something changes. */
  readonly getSnapshot = (): LlamaStatus => this.snapshot;

  /** All instances and the state of the connection; the same object until something changes. */
  readonly getFleet = (): FleetSnapshot => {
    this.fleet ??= {
      instances: this.log.instances,
      defaultName: this.log.defaultName,
      connection: this.connection,
      lastMessageAt: this.lastMessageAt,
      clockOffset: this.log.clockOffset,
    };
    return this.fleet;
  };

  /** The server's clock now, in unix milliseconds. */
  readonly serverNow = (): number => this.options.now() + this.log.clockOffset;

  /** The one socket; it connects on the first call. */
  readonly getSocket = (): S => {
    this.socket ??= this.options.openSocket();
    return this.socket;
  };

  /** Ask the server for the newest status of the default instance. */
  readonly requestLlamaStatus = (): void => {
    this.getSocket().emit("requestLlamaStatus");
  };

  /** Hear about one instance, or `*` for all of them, until the returned function is called. */
  readonly subscribeInstance = (target: string): (() => void) => {
    this.targets.set(target, (this.targets.get(target) ?? 0) + 1);
    if (this.socket?.connected) this.socket.emit("subscribe", { instance: target });
    this.resync();
    return () => {
      const left = (this.targets.get(target) ?? 1) - 1;
      if (left > 0) this.targets.set(target, left);
      else this.targets.delete(target);
    };
  };

  /** Begin with what the server put into the page, so that nothing flickers. */
  readonly bootstrap = (picture: Picture): void => {
    if (this.log.replaceAll(picture, this.options.now())) this.changed();
  };

  /** A message of another kind has come: the connection lives, and the clock can be compared. */
  readonly observe = (timestamp: number): void => {
    const now = this.options.now();
    this.lastMessageAt = now;
    this.log.observeClock(timestamp, now);
    this.fleet = null;
  };

  private open(): void {
    const socket = this.getSocket();
    for (const [event, listener] of this.handlers) socket.on(event, listener);
    if (socket.connected) this.onConnect();
    this.ticker = setInterval(this.tick, TICK_MILLISECONDS);
  }

  private close(): void {
    if (this.ticker !== null) clearInterval(this.ticker);
    if (this.resyncTimer !== null) clearTimeout(this.resyncTimer);
    this.ticker = this.resyncTimer = null;
    for (const [event, listener] of this.handlers) this.socket?.off(event, listener);
    this.socket?.disconnect();
    this.socket = null;
    this.connection = "connecting";
    this.fleet = null;
  }

  private readonly onConnect = (): void => {
    this.failures = 0;
    this.connection = "live";
    this.log.forgetClock();
    for (const target of this.targets.keys()) this.socket?.emit("subscribe", { instance: target });
    // Changes of the time without a connection are not sent again.
    this.resync();
    this.changed();
  };

  private readonly onDisconnect = (): void => {
    this.connection = "reconnecting";
    this.changed();
  };

  private readonly onConnectError = (): void => {
    this.failures += 1;
    const browserIsOffline = "onLine" in globalThis.navigator && !globalThis.navigator.onLine;
    this.connection = browserIsOffline || this.failures >= OFFLINE_AFTER_FAILURES ? "offline" : "reconnecting";
    this.changed();
  };

  private readonly onStatus = (event: LlamaStatusEvent): void => {
    const now = this.options.now();
    this.lastMessageAt = now;
    const outcome = this.log.apply(event, now);
    if (outcome === "stale") return;
    // Only who hears everything can tell a gap; for the others, numbers in between belong to other instances.
    if (outcome === "new-epoch" || (outcome === "gap" && this.targets.has("*"))) this.resync();
    this.changed();
  };

  private readonly handlers: readonly [string, Listener][] = [
    ["connect", this.onConnect],
    ["disconnect", this.onDisconnect],
    ["connect_error", this.onConnectError],
    ["llamaStatus", this.onStatus],
    ["instanceRemoved", () => this.resync()],
    ["configurationReloaded", () => this.resync()],
  ];

  /** Load the whole picture; requests that come close together are served by one load. */
  private resync(): void {
    if (this.resyncTimer !== null || this.listeners.size === 0) return;
    const wait = Math.max(0, this.lastResyncAt + RESYNC_INTERVAL_MILLISECONDS - this.options.now());
    this.resyncTimer = setTimeout(() => {
      this.resyncTimer = null;
      this.lastResyncAt = this.options.now();
      void this.load();
    }, wait);
  }

  private async load(): Promise<void> {
    try {
      const picture = await this.options.loadPicture();
      if (this.listeners.size === 0) return;
      this.lastMessageAt = this.options.now();
      if (this.log.replaceAll(picture, this.lastMessageAt)) this.changed();
      else this.resync();
    } catch {
      // The server is going or gone: the socket notices that by itself and calls again when it is back.
      if (this.socket?.connected) this.resync();
    }
  }

  private readonly tick = (): void => {
    if (this.refreshSnapshot()) this.notify();
  };

  private changed(): void {
    this.fleet = null;
    this.refreshSnapshot();
    this.notify();
  }

  private notify(): void {
    for (const listener of [...this.listeners]) listener();
  }

  private refreshSnapshot(): boolean {
    const next = this.view();
    const isSame = (Object.keys(next) as (keyof LlamaStatus)[]).every((key) => Object.is(next[key], this.snapshot[key]));
    if (!isSame) this.snapshot = next;
    return !isSame;
  }

  private view(): LlamaStatus {
    const known = this.log.get();
    if (!known) return EMPTY;
    const { status, models, lastError, retries, startedAt, isLoading } = known;
    return { status, models, lastError, retries, startedAt, isLoading, uptime: uptimeSeconds(known, this.serverNow()) };
  }
}

/** Whole seconds since the start of an instance's process; 0 when none runs. */
export function uptimeSeconds({ startedAt }: { startedAt: string | null }, serverNow: number): number {
  return startedAt === null ? 0 : Math.max(0, Math.floor((serverNow - Date.parse(startedAt)) / 1000));
}

async function loadPicture(): Promise<Picture> {
  const response = await fetch("/admin/instances", { headers: { accept: "application/json" }, cache: "no-store" });
  if (!response.ok) throw new Error(`GET /admin/instances answered ${response.status}`);
  return (await response.json()) as Picture;
}

function openSocket(): Socket {
  const socket = io({
    path: "/socket.io",
    transports: ["websocket", "polling"],
    tryAllTransports: true,
    reconnectionDelay: RECONNECT_DELAY_MILLISECONDS,
    reconnectionDelayMax: RECONNECT_DELAY_MAX_MILLISECONDS,
  });
  socket.on("connect_error", (error: Error & { data?: { code?: string } }) => {
    // The key that one was logged in with has ended. No further try is made; loaded anew, the page leads to the login.
    if (error.data?.code === "invalid_api_key") location.reload();
  });
  return socket;
}

/** The store of this page. */
export const useLlamaStatus = new LlamaStatusStore<Socket>({ openSocket, loadPicture, now: () => Date.now() });

/** The socket of `useLlamaStatus`. */
export const getSocket = useLlamaStatus.getSocket;

/** Ask the server for the newest status of the default instance. */
export const requestLlamaStatus = useLlamaStatus.requestLlamaStatus;
