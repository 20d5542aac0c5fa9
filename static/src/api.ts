/** Requests to the server's own API, with its errors as one exception. */

import type { HistoryEntry, LlamaServiceStatus } from "./types";
import type { Action } from "./words";

/** The body of every error: OpenAI's shape. */
export interface ErrorBody {
  error?: { message?: string; code?: string | null; type?: string; param?: string | null };
}

/** A request that the server refused, or that did not reach it (`status` 0). */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly retryAfterSeconds: number | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

const UNREACHABLE = "The server does not answer. It may be stopping or restarting.";

/** `fetch` that rejects with `ApiError` for every kind of failure but an abort. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(UNREACHABLE, 0);
  }
  if (response.ok) return response;
  throw await errorOf(response);
}

async function errorOf(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("retry-after") ?? Number.NaN);
  const retryAfter = Number.isFinite(wait) ? wait : null;
  const body = (await response.json().catch(() => null)) as ErrorBody | null;
  const message = body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, response.status, body?.error?.code ?? null, retryAfter);
}

/** POST a JSON body. */
export function postJson(path: string, body: unknown, signal?: AbortSignal, more: Record<string, string> = {}): Promise<Response> {
  const headers = { "content-type": "application/json", ...more };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), ...(signal ? { signal } : {}) });
}

/** The address of an instance's resource. */
export function instancePath(name: string, rest = ""): string {
  return `/admin/instances/${encodeURIComponent(name)}${rest}`;
}

/** Start, stop or restart an instance; resolves when the request was taken. */
export async function act(name: string, action: Action): Promise<void> {
  await postJson(instancePath(name, `/${action}`), {});
}

/** One instance with its changes of state, oldest first. */
export async function loadInstance(name: string): Promise<LlamaServiceStatus & { history: HistoryEntry[] }> {
  const response = await request(instancePath(name));
  return (await response.json()) as LlamaServiceStatus & { history: HistoryEntry[] };
}
