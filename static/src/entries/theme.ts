/**
 * The colour scheme: the system's, or the one chosen by the toggle. Loaded as a classic script in the head, before anything is painted,
 * so it shares no code with the other entries.
 */

type Theme = "auto" | "light" | "dark";

(() => {
  const KEY = "llamavisor.theme";
  const ORDER: readonly Theme[] = ["auto", "light", "dark"];
  const LABELS: Record<Theme, string> = { auto: "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;

  const stored = (): Theme => {
    try {
      const value = localStorage.getItem(KEY) as Theme | null;
      return value && ORDER.includes(value) ? value : "auto";
    } catch {
      // Storage may be forbidden; then the choice lasts for this page.
      return (root.dataset["theme"] as Theme | undefined) ?? "auto";
    }
  };

  const remember = (theme: Theme): void => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // See `stored`.
    }
  };

  const isDark = (): boolean => {
    const theme = root.dataset["theme"];
    return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  };

  const apply = (theme: Theme): void => {
    root.dataset["theme"] = theme;
    // The name that Swagger UI's style sheet knows.
    root.classList.toggle("dark-mode", isDark());
    for (const toggle of document.querySelectorAll("[data-theme-toggle]")) {
      const next = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length] ?? "auto";
      const label = `Colours: ${LABELS[theme]}. Switch to ${LABELS[next]}`;
      toggle.setAttribute("aria-label", label);
      toggle.setAttribute("title", label);
    }
    document.dispatchEvent(new Event("themechange"));
  };

  const advance = (): void => {
    const next = ORDER[(ORDER.indexOf(stored()) + 1) % ORDER.length] ?? "auto";
    remember(next);
    apply(next);
  };

  // What only works with JavaScript is shown from the first paint on.
  root.dataset["js"] = "";
  apply(stored());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(stored()));
  addEventListener("storage", (event) => {
    if (event.key === KEY) apply(stored());
  });
  document.addEventListener("DOMContentLoaded", () => {
    apply(stored());
    for (const toggle of document.querySelectorAll("[data-theme-toggle]")) toggle.addEventListener("click", advance);
  });
})();

export {};
