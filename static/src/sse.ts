/** A parser of `text/event-stream` that takes the bytes as the network cuts them. */

/** One dispatched event; `event` is `message` unless the stream named another. */
export interface SseEvent {
  event: string;
  data: string;
}

/**
 * Feed it bytes, get events. Handles CR, LF and CRLF (also cut between CR and LF), characters cut in the middle, comments, several data
 * lines per event and a byte order mark. What follows the last blank line is no event: the stream was cut there.
 */
export class SseParser {
  private readonly decoder = new TextDecoder("utf-8");
  private rest = "";
  private event = "";
  private data: string[] = [];

  /** The events that these bytes complete. */
  push(bytes: Uint8Array): SseEvent[] {
    return this.take(this.decoder.decode(bytes, { stream: true }));
  }

  private take(text: string): SseEvent[] {
    const events: SseEvent[] = [];
    let buffer = this.rest + text;
    // A CR at the very end may be half of a CRLF.
    const held = buffer.endsWith("\r") ? "\r" : "";
    buffer = held ? buffer.slice(0, -1) : buffer;
    const lines = buffer.split(/\r\n|\n|\r/);
    this.rest = (lines.pop() ?? "") + held;
    for (const line of lines) this.takeLine(line, events);
    return events;
  }

  private takeLine(line: string, events: SseEvent[]): void {
    if (line === "") {
      this.dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
  }

  private dispatch(events: SseEvent[]): void {
    if (this.data.length > 0) events.push({ event: this.event || "message", data: this.data.join("\n") });
    this.data = [];
    this.event = "";
  }
}

/** The events of a response body, as they come; ends where the body ends. Cancels the body when the consumer leaves. */
export async function* readSse(body: ReadableStream<Uint8Array>): AsyncGenerator<SseEvent> {
  const reader = body.getReader();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    // Rejects when the stream has failed already, which the consumer has been told.
    await reader.cancel().catch(() => undefined);
  }
}
