import assert from "node:assert/strict";
import { test } from "node:test";
import { LlamaStatusStore, type StatusSocket } from "../src/llama_status";
import type { Picture } from "../src/status_log";
import { eventOf, pictureOf, statusOf } from "./statuses";

/** A socket whose other end is the test. */
class ScriptedSocket implements StatusSocket {
  connected = false;
  readonly sent: [string, unknown][] = [];
  private readonly listeners = new Map<string, Set<(...values: never[]) => void>>();

  on(event: string, listener: (...values: never[]) => void): void {
    this.listeners.set(event, (this.listeners.get(event) ?? new Set()).add(listener));
  }
  off(event: string, listener: (...values: never[]) => void): void {
    this.listeners.get(event)?.delete(listener);
  }
  emit(event: string, value?: unknown): void {
    this.sent.push([event, value]);
  }
  disconnect(): void {
    this.connected = false;
  }
  receive(event: string, value?: unknown): void {
    if (event === "connect") this.connected = true;
    for (const listener of this.listeners.get(event) ?? []) (listener as (value: unknown) => void)(value);
  }
  get listenerCount(): number {
    return [...this.listeners.values()].reduce((sum, each) => sum + each.size, 0);
  }
}

interface Bench {
  socket: ScriptedSocket;
  store: LlamaStatusStore<ScriptedSocket>;
  loads: () => number;
  /** Resolves after the next load has been taken in. */
  settled: (loads: number) => Promise<void>;
}

function bench(pictures: Picture[]): Bench {
  const socket = new ScriptedSocket();
  let loads = 0;
  let clock = 0;
  const loadPicture = (): Promise<Picture> => {
    const picture = pictures[Math.min(loads, pictures.length - 1)];
    loads += 1;
    return picture ? Promise.resolve(picture) : Promise.reject(new Error("No picture"));
  };
  // Every look at the clock finds it an hour later, so that no pause between two loads is waited for.
  const now = (): number => (clock += 3_600_000);
  const store = new LlamaStatusStore({ openSocket: () => socket, loadPicture, now });
  const settled = async (count: number): Promise<void> => {
    while (loads < count) await new Promise((resolve) => setTimeout(resolve));
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { socket, store, loads: () => loads, settled };
}

test("the last subscriber takes every listener and the connection with it", () => {
  const { socket, store } = bench([]);
  const first = store.subscribe(() => undefined);
  const second = store.subscribe(() => undefined);
  assert(socket.listenerCount > 0);
  first();
  first();
  assert(socket.listenerCount > 0);
  second();
  assert.equal(socket.listenerCount, 0);
});

test("a snapshot is the same object until something changes", () => {
  const { socket, store } = bench([pictureOf(1, [statusOf()])]);
  const unsubscribe = store.subscribe(() => undefined);
  socket.receive("llamaStatus", eventOf(1));
  const before = store.getSnapshot();
  assert.equal(store.getSnapshot(), before);
  assert.equal(store.getFleet(), store.getFleet());
  socket.receive("llamaStatus", eventOf(2, { status: "crashed", lastError: "killed by signal 9" }));
  assert.notEqual(store.getSnapshot(), before);
  assert.equal(store.status, "crashed");
  assert.equal(store.lastError, "killed by signal 9");
  unsubscribe();
});

test("a connection subscribes again and loads the picture", async () => {
  const { socket, store, settled } = bench([pictureOf(4, [statusOf(), statusOf({ instance: "other" })])]);
  const unsubscribe = store.subscribe(() => undefined);
  store.subscribeInstance("*");
  socket.receive("connect");
  assert.deepEqual(socket.sent, [["subscribe", { instance: "*" }]]);
  await settled(1);
  assert.deepEqual(store.getFleet().instances.map((each) => each.instance), ["demo", "other"]);
  assert.equal(store.getFleet().connection, "live");
  unsubscribe();
});

test("a gap loads the picture; no gap does not", async () => {
  const { socket, store, loads, settled } = bench([pictureOf(1, [statusOf()]), pictureOf(9, [statusOf({ status: "error" })])]);
  const unsubscribe = store.subscribe(() => undefined);
  store.subscribeInstance("*");
  socket.receive("connect");
  await settled(1);
  socket.receive("llamaStatus", eventOf(2, { status: "crashed" }));
  await settled(1);
  assert.equal(loads(), 1);
  socket.receive("llamaStatus", eventOf(8, { status: "starting" }));
  await settled(2);
  assert.equal(store.status, "error");
  unsubscribe();
});

test("who hears one instance only takes no other's numbers for a gap", async () => {
  const { socket, store, loads, settled } = bench([pictureOf(1, [statusOf()])]);
  const unsubscribe = store.subscribe(() => undefined);
  socket.receive("connect");
  await settled(1);
  socket.receive("llamaStatus", eventOf(50, { status: "crashed" }));
  await settled(1);
  assert.equal(loads(), 1);
  unsubscribe();
});

test("a new epoch loads the picture, and what is gone goes", async () => {
  const old = pictureOf(5, [statusOf(), statusOf({ instance: "gone" })]);
  const { socket, store, settled } = bench([old, pictureOf(2, [statusOf()], { epoch: "e2" })]);
  const unsubscribe = store.subscribe(() => undefined);
  socket.receive("connect");
  await settled(1);
  assert.equal(store.getFleet().instances.length, 2);
  socket.receive("llamaStatus", eventOf(1, {}, { epoch: "e2" }));
  await settled(2);
  assert.deepEqual(store.getFleet().instances.map((each) => each.instance), ["demo"]);
  unsubscribe();
});

test("a lost connection is said, and called offline after several tries", () => {
  const { socket, store } = bench([]);
  const unsubscribe = store.subscribe(() => undefined);
  socket.receive("disconnect");
  assert.equal(store.getFleet().connection, "reconnecting");
  for (let attempt = 0; attempt < 3; attempt += 1) socket.receive("connect_error");
  assert.equal(store.getFleet().connection, "offline");
  unsubscribe();
});

test("uptime is counted from startedAt by the server's clock", () => {
  const socket = new ScriptedSocket();
  const store = new LlamaStatusStore({ openSocket: () => socket, loadPicture: () => Promise.reject(new Error("unused")), now: () => 1_000 });
  const unsubscribe = store.subscribe(() => undefined);
  const timestamp = Date.parse("2026-01-01T00:01:40.000Z");
  socket.receive("llamaStatus", eventOf(1, { startedAt: "2026-01-01T00:00:00.000Z" }, { timestamp }));
  assert.equal(store.uptime, 100);
  unsubscribe();
});
