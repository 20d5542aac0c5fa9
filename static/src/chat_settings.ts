/** The sampling settings: their bounds, the drawer that edits them, and where they are remembered. */

import { must, setAttribute, setText } from "./dom";

/** What goes into the request; what is absent is left to the engine. */
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  max_tokens?: number;
  seed?: number;
}

/** The settings of the chat page. */
export interface ChatSettings {
  system: string;
  sampling: Sampling;
}

interface Bound {
  min: number;
  max: number;
  isWhole: boolean;
}

type SamplingKey = keyof Sampling;

const KEY = "llamavisor.chat.settings.v1";
const MAX_SEED = 2 ** 32 - 1;

/** The values that the server accepts. */
export const BOUNDS: Record<SamplingKey, Bound> = {
  temperature: { min: 0, max: 2, isWhole: false },
  top_p: { min: 0, max: 1, isWhole: false },
  top_k: { min: 1, max: 100_000, isWhole: true },
  max_tokens: { min: 1, max: 1_000_000, isWhole: true },
  seed: { min: 0, max: MAX_SEED, isWhole: true },
};

const SAMPLING_KEYS = Object.keys(BOUNDS) as SamplingKey[];

/** What is wrong with what was typed for `key`; null when it is fine or empty. Pure. */
export function problemWith(key: SamplingKey, typed: string): string | null {
  const { min, max, isWhole } = BOUNDS[key];
  if (typed.trim() === "") return null;
  const value = Number(typed);
  if (!Number.isFinite(value) || value < min || value > max || (isWhole && !Number.isInteger(value))) {
    return `${isWhole ? "A whole number" : "A number"} from ${min} to ${max}`;
  }
  return null;
}

/** Settings from what was stored; what is not valid is left out. Pure. */
export function reviveSettings(stored: string | null): ChatSettings {
  let value: { system?: unknown; sampling?: Record<string, unknown> } | null;
  try {
    value = JSON.parse(stored ?? "null") as typeof value;
  } catch {
    value = null;
  }
  const sampling: Sampling = {};
  for (const key of SAMPLING_KEYS) {
    const figure = value?.sampling?.[key];
    if (typeof figure === "number" && problemWith(key, String(figure)) === null) sampling[key] = figure;
  }
  return { system: typeof value?.system === "string" ? value.system : "", sampling };
}

/** The dialog with the form; `settings` is always valid. */
export class SettingsDrawer {
  settings: ChatSettings;

  constructor(
    private readonly dialog: HTMLDialogElement,
    opener: HTMLButtonElement,
    private readonly onChange: () => void,
  ) {
    this.settings = reviveSettings(recall());
    opener.addEventListener("click", () => dialog.showModal());
    dialog.addEventListener("click", (event) => {
      // The dialog itself is hit only beside its content: on the backdrop.
      if (event.target === dialog) dialog.close();
    });
    must(dialog, "[data-part='settings-close']").addEventListener("click", () => dialog.close());
    must(dialog, "[data-part='settings-reset']").addEventListener("click", () => this.reset());
    for (const key of SAMPLING_KEYS) this.input(key).addEventListener("input", () => this.takeNumber(key));
    this.system.addEventListener("input", () => this.takeSystem());
    this.fill();
  }

  private get system(): HTMLTextAreaElement {
    return must(this.dialog, "[name='system']");
  }

  private input(key: SamplingKey): HTMLInputElement {
    return must(this.dialog, `[name="${key}"]`);
  }

  private fill(): void {
    this.system.value = this.settings.system;
    for (const key of SAMPLING_KEYS) {
      this.input(key).value = String(this.settings.sampling[key] ?? "");
      this.showProblem(key, null);
    }
  }

  private reset(): void {
    this.settings = { system: "", sampling: {} };
    this.fill();
    this.changed();
  }

  private takeSystem(): void {
    this.settings = { ...this.settings, system: this.system.value };
    this.changed();
  }

  private takeNumber(key: SamplingKey): void {
    const input = this.input(key);
    // A number field says "" for what is no number at all.
    const problem = input.validity.badInput ? "A number" : problemWith(key, input.value);
    this.showProblem(key, problem);
    if (problem !== null) return;
    const sampling = { ...this.settings.sampling };
    delete sampling[key];
    if (input.value.trim() !== "") sampling[key] = Number(input.value);
    this.settings = { ...this.settings, sampling };
    this.changed();
  }

  private showProblem(key: SamplingKey, problem: string | null): void {
    setAttribute(this.input(key), "aria-invalid", problem === null ? null : "true");
    setText(must(this.dialog, `[data-problem="${key}"]`), problem ?? "");
  }

  private changed(): void {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.settings));
    } catch {
      // Forbidden: the settings then last as long as the page.
    }
    this.onChange();
  }
}

function recall(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
