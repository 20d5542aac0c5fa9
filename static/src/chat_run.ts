/** One answer from the first wait to its end. */

import { ApiError } from "./api";
import { stopStream } from "./chat_resume";
import { type Answer, LEFT } from "./chat_state";
import { AnswerReader, type ChatRequest, type OpenStream, openStream, readAnswer, rejoinStream } from "./chat_stream";
import type { LlamaServiceState, LlamaServiceStatus } from "./types";
import { turnText, whyNotReady } from "./words";

/** What a run needs to know about the instance that will answer. */
export interface Readiness {
  instance(): LlamaServiceStatus | undefined;
  subscribe(listener: () => void): () => void;
}

/** Who wants to know about a run. */
export interface RunListener {
  /** The answer differs. */
  change(): void;
  /** The server keeps the stream up under this name. */
  stream(id: string): void;
}

const NOT_AVAILABLE = 503;
const READY: readonly LlamaServiceState[] = ["ready"];
const SERVED_OR_LOADED: readonly LlamaServiceState[] = ["ready", "starting", "initial"];
const MAX_REFUSALS = 20;
const REFUSED_WAIT_SECONDS = 1;
const REFUSED_WAIT_MAX_SECONDS = 10;
/** Browsers break streams off some milliseconds before they tell a page that it is being left; only later is a loss known to be one. */
const LEAVING_MILLISECONDS = 200;
const REJOINING = "Joining the answer again";
const LOST = "the connection to Llamavisor was lost before the answer was complete";
const UNFINISHED = "the stream ended before the answer was complete";

/**
 * Fills `answer`, telling the listener whenever it differs. Waits while the instance is not ready; a refusal with 503 sends it back to
 * waiting. Never rejects for what a server or network can do: the answer says it. `asked` is a request, or the id of a stream to join again.
 */
export class AnswerRun {
  private readonly aborter = new AbortController();
  private streamId: string | null = null;

  constructor(
    private readonly answer: Answer,
    private readonly asked: ChatRequest | string,
    private readonly readiness: Readiness,
    private readonly listener: RunListener,
  ) {
    if (typeof asked === "string") this.streamId = asked;
  }

  /** End it, at the server too; what has come stays. */
  stop(): void {
    this.aborter.abort();
    if (this.streamId !== null) void stopStream(this.streamId);
  }

  /** Resolves when the answer has ended, however. */
  async run(): Promise<void> {
    try {
      if (typeof this.asked === "string") await this.rejoin(this.asked);
      else await this.open(this.asked);
    } catch (error) {
      if (this.aborter.signal.aborted) this.end("stopped", null);
      else if (error instanceof ApiError && typeof this.asked === "string") this.end("cut", LEFT);
      else if (error instanceof ApiError) this.end("failed", error.message);
      else throw error;
    }
  }

  private async rejoin(id: string): Promise<void> {
    this.wait(REJOINING);
    await this.follow(await rejoinStream(id, this.aborter.signal));
  }

  private follow({ body, id }: OpenStream): Promise<void> {
    this.streamId = id;
    if (id !== null) this.listener.stream(id);
    return this.read(body);
  }

  private async open(request: ChatRequest): Promise<void> {
    for (let refusals = 0; ; refusals += 1) {
      // The server may load the model for whoever asks, and tells of it; once it has refused, waiting is for us.
      await this.untilReady(refusals === 0 ? SERVED_OR_LOADED : READY);
      try {
        await this.follow(await openStream(request, this.aborter.signal));
        return;
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== NOT_AVAILABLE || refusals >= MAX_REFUSALS) throw error;
        this.wait(error.message);
        await this.pause(Math.min(error.retryAfterSeconds ?? REFUSED_WAIT_SECONDS, REFUSED_WAIT_MAX_SECONDS));
      }
    }
  }

  /** An instance that is not known yet does not hold the request up: the server then has the word. */
  private untilReady(states: readonly LlamaServiceState[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): boolean => {
        const instance = this.readiness.instance();
        if (!this.aborter.signal.aborted && instance && !states.includes(instance.status)) {
          this.wait(whyNotReady(instance));
          return false;
        }
        unsubscribe();
        this.aborter.signal.removeEventListener("abort", settle);
        if (this.aborter.signal.aborted) reject(new DOMException("Stopped", "AbortError"));
        else resolve();
        return true;
      };
      let unsubscribe = (): void => undefined;
      if (settle()) return;
      unsubscribe = this.readiness.subscribe(settle);
      this.aborter.signal.addEventListener("abort", settle);
    });
  }

  /** Sooner when the instance's status changes. */
  private pause(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        unsubscribe();
        this.aborter.signal.removeEventListener("abort", done);
        resolve();
      };
      const before = this.readiness.instance();
      const timer = setTimeout(done, seconds * 1000);
      const unsubscribe = this.readiness.subscribe(() => {
        if (this.readiness.instance() !== before) done();
      });
      this.aborter.signal.addEventListener("abort", done);
    });
  }

  private async read(body: ReadableStream<Uint8Array>): Promise<void> {
    const reader = new AnswerReader(() => performance.now());
    this.answer.note = null;
    const isWhole = await readAnswer(body, reader, this.aborter.signal, () => this.take(reader));
    this.take(reader);
    if (reader.refusal && !this.aborter.signal.aborted) throw reader.refusal;
    if (!isWhole && !this.aborter.signal.aborted) await delay(LEAVING_MILLISECONDS);
    if (reader.isComplete) {
      this.answer.reachedLimit = reader.finishReason === "length";
      this.end("done", null);
    } else if (this.aborter.signal.aborted) this.end("stopped", null);
    else this.end("cut", reader.failure ?? this.guessWhy(isWhole));
  }

  /** No reason came in the stream. When the server crashed, its last words are the reason. */
  private guessWhy(isWhole: boolean): string {
    const instance = this.readiness.instance();
    if (instance?.lastError) return `the server crashed: ${instance.lastError}`;
    return isWhole ? UNFINISHED : LOST;
  }

  private take({ text, reasoning, tokens, tokensPerSecond, waiting }: AnswerReader): void {
    // Joined again, it comes from its beginning: what is shown already stays until there is more.
    if (text.length < this.answer.text.length || reasoning.length < this.answer.reasoning.length) return;
    const now = waiting ? { status: "waiting", note: turnText(waiting) } : { status: "streaming", note: null };
    Object.assign(this.answer, { text, reasoning, tokens, tokensPerSecond, ...now });
    this.listener.change();
  }

  private wait(note: string): void {
    this.answer.status = "waiting";
    this.answer.note = note;
    this.listener.change();
  }

  private end(status: Answer["status"], note: string | null): void {
    this.answer.status = status;
    this.answer.note = note;
    this.listener.change();
  }
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
