/** The wire shapes of live status (Socket.IO) and of `GET /admin/instances`. */

/** The six states of an instance. */
export type LlamaServiceState = "initial" | "starting" | "ready" | "crashed" | "error" | "stopping";

/** A model that an instance serves; `size` in bytes, `modified_at` in unix seconds; 0 is not known. */
export interface LlamaModel {
  id: string;
  name: string;
  size: number;
  type: string;
  modified_at: number;
  status?: string;
  metadata?: LlamaModelMetadata;
}

/** What the header of a model's file says, or failing that its server; a field that is not known is absent. */
export interface LlamaModelMetadata {
  architecture?: string;
  parameter_count?: number;
  quantisation?: string;
  context_length?: number;
  has_chat_template?: boolean;
  licence?: string;
}

/** One instance as the server describes it: `data` of `llamaStatus`, and the items of `GET /admin/instances`. */
export interface LlamaServiceStatus {
  instance: string;
  status: LlamaServiceState;
  models: LlamaModel[];
  lastError: string | null;
  retries: number;
  /** Seconds at the time of the message; count on from `startedAt`. */
  uptime: number;
  /** ISO-8601 in UTC. */
  startedAt: string | null;
  isLoading: boolean;
  engine: string;
  pid: number | null;
  maxRetries: number;
  /** Unix milliseconds by the server's clock. */
  nextRetryAt: number | null;
  reason: string | null;
  remedy: string | null;
  exitCode: number | null;
  signal: number | null;
  stderrTail: string[];
  /** 0 to 1 while loading, when known. */
  progress: number | null;
  adopted: boolean;
  address: string | null;
  /** Why it is not ready, in a sentence. */
  explanation: string;
  /** What happened, in a few words, without the countdown to the next try. */
  headline: string;
  required: boolean;
  readyAt: string | null;
  surviveSupervisor: boolean;
  /** What ended it the last time; stays after the recovery. */
  lastCrash: string | null;
  requestsActive: number;
  /** Counts its changes of state within an epoch; a gap means that some were missed. */
  stateSeq: number;
}

/** The `llamaStatus` message. `timestamp` in unix milliseconds by the server's clock; `seq` counts the events of one `epoch`. */
export interface LlamaStatusEvent {
  type: "llama_status";
  data: LlamaServiceStatus;
  timestamp: number;
  epoch: string;
  seq: number;
}

/** What `useLlamaStatus` tells about the default instance; `uptime` in seconds, counted locally. */
export interface LlamaStatus {
  status: LlamaServiceState;
  models: LlamaModel[];
  lastError: string | null;
  retries: number;
  uptime: number;
  startedAt: string | null;
  isLoading: boolean;
}

/** The flat settings of one llama.cpp server; `llamavisor config import` takes them. −1 leaves a figure to the engine. */
export interface LlamaServerConfig {
  llama_server_host: string;
  llama_server_port: number;
  llama_server_path: string;
  llama_model_path: string;
  basePath: string;
  ctx_size: number;
  batch_size: number;
  ubatch_size: number;
  threads: number;
  threads_batch: number;
  gpu_layers: number;
  main_gpu: number;
  flash_attn: boolean;
  temperature: number;
  top_k: number;
  top_p: number;
  repeat_penalty: number;
  n_predict: number;
  seed: number;
  verbose: boolean;
  embedding: boolean;
  cache_type_k: string;
  cache_type_v: string;
}

/** `data` of `metrics`: times in milliseconds or seconds as the name or the server's documentation says, memory in bytes, CPU in percent. */
export interface MetricsData {
  activeModels: number;
  totalRequests: number;
  /** Milliseconds, over the last 60 s. */
  avgResponseTime: number | null;
  memoryUsage: number;
  cpuUsage: number;
  uptime: number;
  lastUpdated: number | string;
  tokensPerSecond?: number;
  requestsActive?: number;
  requestsQueued?: number;
}

/** The `metrics` message. */
export interface MetricsEvent {
  type: "metrics";
  data: MetricsData;
  timestamp: number;
}

/** One change of state, as `GET /admin/instances/{name}` lists it; `timestamp` in unix milliseconds. */
export interface HistoryEntry {
  stateSeq: number;
  status: LlamaServiceState;
  reason: string | null;
  headline: string;
  timestamp: number;
}

/** One line that an instance printed; `timestamp` in unix milliseconds. */
export interface LogEntry {
  id: number;
  level: string;
  message: string;
  timestamp: number;
  stream: string;
}
