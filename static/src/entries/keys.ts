/** The page on keys: makes, changes and revokes keys, adds projects, sets limits and budgets. */

import { amountOf } from "../amounts";
import { request } from "../api";
import { FieldError, FormDialog } from "../dialogs";
import { announce, bindCopy, must, part } from "../dom";
import { localiseTimes, momentText } from "../moments";
import { refresh } from "../refresh";

const DAY_MILLISECONDS = 86_400_000;
const LIMITS = ["requests_per_minute", "tokens_per_minute", "concurrency"] as const;

/** What is said of an amount that is none, by its unit. */
const AMOUNTS: Record<string, string> = {
  micros: "Write the amount as 20 or 0.05: digits, with a point and not a comma, six of them behind it at most.",
  tokens: "Write the amount of tokens as a whole number: digits alone, as 1500000.",
};

type Limits = Record<(typeof LIMITS)[number], number | null>;

/** A key as its row tells it. */
interface Key {
  id: string;
  label: string;
  expires_at: string | null;
  limits: Limits;
}

/** Send JSON to the administration; the answer. */
async function send(method: string, path: string, body?: unknown): Promise<unknown> {
  const json = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await request(path, { method, ...json });
  return response.json();
}

function textOf(fields: FormData, name: string): string {
  const value = fields.get(name);
  return typeof value === "string" ? value.trim() : "";
}

/** Every limit; null, as configured, where nothing is written. */
function limitsOf(fields: FormData): Limits {
  return Object.fromEntries(LIMITS.map((name) => [name, Number(textOf(fields, name)) || null])) as Limits;
}

/** Those that are not as they were: others may have been changed elsewhere meanwhile. */
function limitChanges(before: Limits, fields: FormData): Partial<Limits> {
  const given = limitsOf(fields);
  return Object.fromEntries(LIMITS.filter((name) => given[name] !== before[name]).map((name) => [name, given[name]]));
}

function showLimits(form: HTMLFormElement, limits: Limits): void {
  for (const name of LIMITS) must<HTMLInputElement>(form, `[name="${name}"]`).value = String(limits[name] ?? "");
}

/** When a key expires: what the choice `days` says, null for never; nothing where it says that it stays. */
function expiryOf(fields: FormData): { expires_at?: string | null } {
  const days = textOf(fields, "days");
  if (days === "keep") return {};
  return { expires_at: days ? new Date(Date.now() + Number(days) * DAY_MILLISECONDS).toISOString() : null };
}

function keyBody(fields: FormData): Record<string, unknown> {
  return {
    project: textOf(fields, "project"),
    label: textOf(fields, "label"),
    scopes: fields.getAll("scopes"),
    limits: limitsOf(fields),
    ...expiryOf(fields),
  };
}

function bindKeyDialog(): void {
  const dialog = new FormDialog("key", false);
  const fields = part(dialog.root, "fields");
  const made = part(dialog.root, "made");
  const text = part<HTMLInputElement>(dialog.root, "key-text");
  const leaving = part(dialog.root, "leaving");
  const show = (key: string): void => {
    text.value = key;
    fields.hidden = key !== "";
    made.hidden = key === "";
    leaving.hidden = true;
  };
  // Who asks twice means it.
  dialog.mayClose = () => {
    if (made.hidden || !leaving.hidden) return true;
    leaving.hidden = false;
    return false;
  };
  dialog.whenSent(async (given) => {
    const { key } = (await send("POST", "/admin/keys", keyBody(given))) as { key: string };
    show(key);
    text.focus();
    // Backwards: what is in sight is the beginning, by which people know it.
    text.setSelectionRange(0, key.length, "backward");
    text.scrollLeft = 0;
    await refresh();
  });
  part(dialog.root, "done").addEventListener("click", () => dialog.root.close());
  // The key is not kept any longer than it is in sight.
  dialog.root.addEventListener("close", () => show(""));
  bindCopy(part<HTMLButtonElement>(dialog.root, "copy"), () => text.value);
}

function bindProjectDialog(): void {
  new FormDialog("project").whenSent(async (fields) => {
    const name = textOf(fields, "name");
    await send("POST", "/admin/projects", { name, limits: limitsOf(fields) });
    await refresh();
    for (const each of document.querySelectorAll<HTMLSelectElement>('[data-options="projects"]')) each.add(new Option(name, name));
    announce(`The project ${name} is there`);
  });
}

function bindBudgetDialog(): void {
  const dialog = new FormDialog("budget");
  const project = must<HTMLSelectElement>(dialog.form, '[name="project"]');
  const key = must<HTMLSelectElement>(dialog.form, '[name="key_id"]');
  const offerKeys = (): void => {
    key.value = "";
    for (const each of key.options) each.hidden = each.disabled = each.value !== "" && each.dataset["project"] !== project.value;
  };
  dialog.whenOpened = offerKeys;
  project.addEventListener("change", offerKeys);
  dialog.whenSent(async (fields) => {
    const [keyId, unit] = [textOf(fields, "key_id"), textOf(fields, "unit")];
    const amount = amountOf(textOf(fields, "amount"), unit);
    if (amount === null) throw new FieldError("amount", AMOUNTS[unit] ?? "");
    const budget = { project: textOf(fields, "project"), period: textOf(fields, "period"), unit, amount };
    await send("PUT", "/admin/budgets", keyId ? { ...budget, key_id: keyId } : budget);
    await refresh();
  });
}

class RowActions {
  private readonly limits = new FormDialog("limits");
  private readonly change = new FormDialog("change");
  private readonly confirm = new FormDialog("confirm");

  /** What the buttons of the rows do; they come and go, the page stays. */
  bind(root: HTMLElement): void {
    root.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest<HTMLButtonElement>("button") : null;
      if (button?.dataset["revoke"]) this.revoke(button.dataset["revoke"], button.dataset["name"] ?? "");
      else if (button?.dataset["change"]) this.changeKey(JSON.parse(button.dataset["change"]) as Key);
      else if (button?.dataset["project"]) this.changeProject(button.dataset["project"], JSON.parse(button.dataset["limits"] ?? "{}") as Limits);
      else if (button?.dataset["removeBudget"]) this.remove(JSON.parse(button.dataset["removeBudget"]) as Record<string, string | null>);
    });
  }

  private ask(question: string, done: () => Promise<unknown>): void {
    part(this.confirm.root, "confirm-text").textContent = question;
    this.confirm.open(async () => {
      await done();
      await refresh();
    });
  }

  private revoke(id: string, name: string): void {
    this.ask(`Revoke the key ${name}? From then on it opens nothing, and it cannot be brought back. Requests that are on their way go on.`, () =>
      send("DELETE", `/admin/keys/${encodeURIComponent(id)}`),
    );
  }

  private remove(budget: Record<string, string | null>): void {
    const given = Object.entries(budget).filter((entry): entry is [string, string] => entry[1] !== null);
    this.ask(`Remove the budget of ${budget["project"] ?? ""} for each ${budget["period"] ?? ""}? What was spent stays in the books.`, () =>
      send("DELETE", `/admin/budgets?${new URLSearchParams(given)}`),
    );
  }

  private changeKey(key: Key): void {
    const { root, form } = this.change;
    this.change.open(async (fields) => {
      const label = textOf(fields, "label");
      const changes = { ...(label === key.label ? {} : { label }), limits: limitChanges(key.limits, fields), ...expiryOf(fields) };
      await send("PATCH", `/admin/keys/${encodeURIComponent(key.id)}`, changes);
      await refresh();
    });
    must<HTMLInputElement>(form, '[name="label"]').value = key.label;
    must<HTMLOptionElement>(form, 'option[value="keep"]').text = key.expires_at ? `as it is: ${momentText(key.expires_at)}` : "as it is: never";
    const never = must<HTMLOptionElement>(form, 'option[value=""]');
    never.hidden = never.disabled = key.expires_at === null;
    showLimits(form, key.limits);
    part(root, "title").textContent = `Change ${key.label || key.id}`;
  }

  private changeProject(project: string, limits: Limits): void {
    this.limits.open(async (fields) => {
      await send("PATCH", `/admin/projects/${encodeURIComponent(project)}`, { limits: limitChanges(limits, fields) });
      await refresh();
    });
    showLimits(this.limits.form, limits);
    part(this.limits.root, "title").textContent = `Limits of ${project}`;
  }
}

function begin(): void {
  localiseTimes(document);
  // Who may change nothing, and who finds the books closed, has no dialogs.
  if (!document.querySelector("[data-dialog]")) return;
  bindKeyDialog();
  bindProjectDialog();
  bindBudgetDialog();
  new RowActions().bind(document.body);
}

begin();
