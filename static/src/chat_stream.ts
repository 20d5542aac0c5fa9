/** A streamed chat completion: the request, and what its events mean. */

import { ApiError, type ErrorBody, postJson, request } from "./api";
import { RESUME_HEADER, RESUME_SECONDS, STREAM_ID_HEADER, streamPath } from "./chat_resume";
import type { ChatMessage } from "./chat_state";
import type { Sampling } from "./chat_settings";
import { readSse } from "./sse";
import type { Turn } from "./words";

interface Chunk extends ErrorBody {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
  timings?: { predicted_n?: number; predicted_per_second?: number };
}

/** Pieces that come in one burst tell nothing about the rate. */
const MEASURABLE_SECONDS = 0.2;
/** The event that tells what a request waits for, and the header that asks for it. */
const WAITING_EVENT = "llamavisor.waiting";
const ASK_FOR_PROGRESS = { "x-llamavisor-progress": "1" };
const NOT_AVAILABLE = 503;
/** What is wrong with the engine is not mended by asking again. */
const ENGINE_FAILED = /^(engine_|incomplete_answer|internal_error)/;
const MALFORMED = "the server sent something that is no JSON";

/**
 * Collects what the `data` of a stream's events says. Complete only after `[DONE]`; an in-band error, or an end without it, is a cut.
 * `now` gives milliseconds of a steady clock, for the rate when the server does not state it.
 */
export class AnswerReader {
  text = "";
  reasoning = "";
  isComplete = false;
  finishReason: string | null = null;
  /** Why the stream failed, in the server's words. */
  failure: string | null = null;
  /** What the request waits for, while it does. */
  waiting: Turn | null = null;
  /** The failure, when the request had not had its turn yet: nothing is lost, and with the status 503 it may be asked again. */
  refusal: ApiError | null = null;
  private pieces = 0;
  private usageTokens: number | null = null;
  private statedRate: number | null = null;
  private firstAt = 0;
  private lastAt = 0;

  constructor(private readonly now: () => number) {}

  /** Tokens generated: as the server counts them, else the pieces received. */
  get tokens(): number {
    return this.usageTokens ?? this.pieces;
  }

  /** Tokens a second: as the server states it, else measured from the first to the last piece. */
  get tokensPerSecond(): number | null {
    if (this.statedRate !== null) return this.statedRate;
    const seconds = (this.lastAt - this.firstAt) / 1000;
    return seconds >= MEASURABLE_SECONDS ? (this.pieces - 1) / seconds : null;
  }

  /** Take the data of one event in; false when nothing after it matters. */
  take(data: string, event = "message"): boolean {
    if (event === WAITING_EVENT) {
      this.waiting = JSON.parse(data) as Turn;
      return true;
    }
    if (data === "[DONE]") {
      this.isComplete = true;
      return false;
    }
    const chunk = parse(data);
    if (chunk === null || chunk.error) {
      this.failure = chunk?.error?.message ?? MALFORMED;
      if (this.waiting && chunk?.error) this.refusal = refusalOf(this.failure, chunk.error);
      return false;
    }
    this.waiting = null;
    this.takeChunk(chunk);
    return true;
  }

  private takeChunk({ choices, usage, timings }: Chunk): void {
    const choice = choices?.[0];
    const content = choice?.delta?.content ?? "";
    const reasoning = choice?.delta?.reasoning_content ?? "";
    if (content || reasoning) this.countPiece();
    this.text += content;
    this.reasoning += reasoning;
    this.finishReason = choice?.finish_reason ?? this.finishReason;
    this.usageTokens = usage?.completion_tokens ?? timings?.predicted_n ?? this.usageTokens;
    this.statedRate = timings?.predicted_per_second ?? this.statedRate;
  }

  private countPiece(): void {
    this.lastAt = this.now();
    if (this.pieces === 0) this.firstAt = this.lastAt;
    this.pieces += 1;
  }
}

/** What would have been an answer with a status, had the stream not begun in order to tell of the waiting. */
function refusalOf(message: string, { type, code }: NonNullable<ErrorBody["error"]>): ApiError {
  const passes = type === "server_error" && !ENGINE_FAILED.test(code ?? "");
  return new ApiError(message, passes ? NOT_AVAILABLE : 0, code ?? null);
}

function parse(data: string): Chunk | null {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === "object" ? (value as Chunk | null) : null;
  } catch {
    return null;
  }
}

/** What to ask for. */
export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  sampling: Sampling;
}

/** A stream that has begun; `id` is its name at the server, if that keeps it up without us. */
export interface OpenStream {
  body: ReadableStream<Uint8Array>;
  id: string | null;
}

/** Ask; resolves once the server has accepted. Rejects with ApiError. */
export async function openStream({ model, messages, sampling }: ChatRequest, signal: AbortSignal): Promise<OpenStream> {
  const body = { model, messages, ...sampling, stream: true, stream_options: { include_usage: true } };
  return opened(await postJson("/v1/chat/completions", body, signal, { ...ASK_FOR_PROGRESS, [RESUME_HEADER]: String(RESUME_SECONDS) }));
}

/** Join a stream again, from its beginning. Rejects with ApiError. */
export async function rejoinStream(id: string, signal: AbortSignal): Promise<OpenStream> {
  return opened(await request(streamPath(id), { headers: ASK_FOR_PROGRESS, signal }));
}

function opened(response: Response): OpenStream {
  if (!response.body) throw new Error("The browser gives no body to read");
  return { body: response.body, id: response.headers.get(STREAM_ID_HEADER) };
}

/** Read to the end, calling `onPiece` after each event. False when the connection broke; that is no rejection. */
export async function readAnswer(
  body: ReadableStream<Uint8Array>,
  reader: AnswerReader,
  signal: AbortSignal,
  onPiece: () => void,
): Promise<boolean> {
  try {
    for await (const { data, event } of readSse(body)) {
      const goesOn = reader.take(data, event);
      onPiece();
      if (!goesOn) break;
    }
    return true;
  } catch (error) {
    if (!signal.aborted && !(error instanceof TypeError)) throw error;
    return false;
  }
}
