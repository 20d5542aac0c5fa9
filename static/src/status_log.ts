/** What is known about all instances, kept true over gaps, restarts of the supervisor and clocks that disagree. Pure. */

import type { LlamaServiceStatus, LlamaStatusEvent } from "./types";

/** What an event meant: `gap` and `new-epoch` were taken in too, but something may have been missed. */
export type Outcome = "applied" | "stale" | "gap" | "new-epoch";

/** A complete picture, as `GET /admin/instances` gives it. */
export interface Picture {
  instances: LlamaServiceStatus[];
  default: string | null;
  epoch: string;
  seq: number;
  timestamp: number;
}

/** The instances by name, with the `epoch` and `seq` up to which they are known. */
export class StatusLog {
  epoch: string | null = null;
  seq = 0;
  defaultName: string | null = null;
  private readonly byName = new Map<string, LlamaServiceStatus>();
  private readonly seqByName = new Map<string, number>();
  private offset: number | null = null;

  /** All instances, in the order in which the server lists them. */
  get instances(): LlamaServiceStatus[] {
    return [...this.byName.values()];
  }

  /** One instance; the default one without a name. */
  get(name: string | null = this.defaultName): LlamaServiceStatus | undefined {
    return name === null ? undefined : this.byName.get(name);
  }

  /** Server clock minus local clock, in milliseconds. */
  get clockOffset(): number {
    return this.offset ?? 0;
  }

  /** Take one event in; `now` is the local unix time in milliseconds. */
  apply(event: LlamaStatusEvent, now: number): Outcome {
    const name = event.data.instance;
    if (event.epoch !== this.epoch) return this.beginEpoch(event, now);
    if (event.seq < (this.seqByName.get(name) ?? 0)) return "stale";
    const outcome = event.seq > this.seq + 1 ? "gap" : "applied";
    this.take(event, now);
    return outcome;
  }

  /** Replace everything; older than what is known already: refused, unless it is of another epoch. */
  replaceAll(picture: Picture, now: number): boolean {
    if (picture.epoch === this.epoch && picture.seq < this.seq) return false;
    this.byName.clear();
    this.seqByName.clear();
    this.epoch = picture.epoch;
    this.seq = picture.seq;
    this.defaultName = picture.default;
    for (const each of picture.instances) {
      this.byName.set(each.instance, each);
      this.seqByName.set(each.instance, picture.seq);
    }
    this.observeClock(picture.timestamp, now);
    return true;
  }

  /** Forget the clock's offset: the connection is a new one, and the server's clock may have been set. */
  forgetClock(): void {
    this.offset = null;
  }

  /** A message can only arrive late, so the largest difference seen is the nearest to the truth. */
  observeClock(timestamp: number, now: number): void {
    this.offset = Math.max(this.offset ?? Number.NEGATIVE_INFINITY, timestamp - now);
  }

  private beginEpoch(event: LlamaStatusEvent, now: number): Outcome {
    const isFirst = this.epoch === null;
    // The instances stay on show until the picture of the new epoch is here: a blank page would say less.
    this.seqByName.clear();
    this.epoch = event.epoch;
    this.offset = null;
    this.take(event, now);
    return isFirst ? "applied" : "new-epoch";
  }

  private take(event: LlamaStatusEvent, now: number): void {
    const name = event.data.instance;
    this.defaultName ??= name;
    this.byName.set(name, event.data);
    this.seqByName.set(name, event.seq);
    this.seq = event.seq > this.seq || this.seqByName.size === 1 ? event.seq : this.seq;
    this.observeClock(event.timestamp, now);
  }
}
