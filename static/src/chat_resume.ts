/** The answer under way, so that a reload of its tab finds it again. The server keeps it up meanwhile. */

import { request } from "./api";

/** What a tab remembers: the stream, and the turn that it answers. */
export interface Pending {
  streamId: string;
  turnId: string;
}

/** How long the server goes on without us: a reload takes less, and who has left for good pays no more than that. */
export const RESUME_SECONDS = 30;
export const RESUME_HEADER = "x-llamavisor-resume";
export const STREAM_ID_HEADER = "x-llamavisor-stream-id";
const KEY = "llamavisor.chat.stream";

/** Remember the stream that answers a turn; another one takes its place. */
export function rememberStream(pending: Pending): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(pending));
  } catch {
    // Full or forbidden: a reload then cuts the answer off.
  }
}

/** There is none any more. */
export function forgetStream(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Forbidden: nothing was remembered.
  }
}

/** The stream that was under way when the page was left. */
export function recallStream(): Pending | null {
  try {
    const stored = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Partial<Pending> | null;
    return stored && typeof stored.streamId === "string" && typeof stored.turnId === "string" ? (stored as Pending) : null;
  } catch {
    return null;
  }
}

/** The address of a stream. */
export function streamPath(streamId: string): string {
  return `/v1/streams/${encodeURIComponent(streamId)}`;
}

/** Have the server end it. One that has ended already is as good. */
export async function stopStream(streamId: string): Promise<void> {
  await request(streamPath(streamId), { method: "DELETE" }).catch(() => undefined);
}
