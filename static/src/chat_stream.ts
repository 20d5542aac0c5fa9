/** A streamed chat completion: the request, and what its events mean. */

import { type ErrorBody, postJson, request } from "./api";
import { RESUME_HEADER, RESUME_SECONDS, STREAM_ID_HEADER, streamPath } from "./chat_resume";
import type { ChatMessage } from "./chat_state";
import type { Sampling } from "./chat_settings";
import { readSse } from "./sse";

interface Chunk extends ErrorBody {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
  timings?: { predicted_n?: number; predicted_per_second?: number };
}

/** Pieces that come in one burst tell nothing about the rate. */
const MEASURABLE_SECONDS = 0.2;
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
  take(data: string): boolean {
    if (data === "[DONE]") {
      this.isComplete = true;
      return false;
    }
    const chunk = parse(data);
    if (chunk === null || chunk.error) {
      this.failure = chunk?.error?.message ?? MALFORMED;
      return false;
    }
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
  return opened(await postJson("/v1/chat/completions", body, signal, { [RESUME_HEADER]: String(RESUME_SECONDS) }));
}

/** Join a stream again, from its beginning. Rejects with ApiError. */
export async function rejoinStream(id: string, signal: AbortSignal): Promise<OpenStream> {
  return opened(await request(streamPath(id), { signal }));
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
    for await (const { data } of readSse(body)) {
      const goesOn = reader.take(data);
      onPiece();
      if (!goesOn) break;
    }
    return true;
  } catch (error) {
    if (!signal.aborted && !(error instanceof TypeError)) throw error;
    return false;
  }
}
