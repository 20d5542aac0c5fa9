/** Statuses for the tests, complete and valid. */

import type { Picture } from "../src/status_log";
import type { LlamaServiceStatus, LlamaStatusEvent } from "../src/types";

/** One instance; ready unless `changes` say otherwise. */
export function statusOf(changes: Partial<LlamaServiceStatus> = {}): LlamaServiceStatus {
  return {
    instance: "demo",
    status: "ready",
    models: [],
    lastError: null,
    retries: 0,
    uptime: 0,
    startedAt: null,
    isLoading: false,
    engine: "embedded",
    pid: 42,
    maxRetries: 5,
    nextRetryAt: null,
    reason: null,
    remedy: null,
    exitCode: null,
    signal: null,
    stderrTail: [],
    progress: null,
    adopted: false,
    address: null,
    explanation: "",
    headline: changes.status ?? "ready",
    required: true,
    readyAt: null,
    surviveSupervisor: false,
    lastCrash: null,
    requestsActive: 0,
    stateSeq: 0,
    ...changes,
  };
}

/** A `llamaStatus` message of epoch `e1`. */
export function eventOf(seq: number, changes: Partial<LlamaServiceStatus> = {}, rest: Partial<LlamaStatusEvent> = {}): LlamaStatusEvent {
  return { type: "llama_status", data: statusOf(changes), timestamp: 1_000, epoch: "e1", seq, ...rest };
}

/** A whole picture of epoch `e1`. */
export function pictureOf(seq: number, instances: LlamaServiceStatus[], rest: Partial<Picture> = {}): Picture {
  return { instances, default: instances[0]?.instance ?? null, epoch: "e1", seq, timestamp: 1_000, ...rest };
}
