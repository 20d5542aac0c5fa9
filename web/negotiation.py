"""What the client would rather read."""

from __future__ import annotations

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


def prefers_html(accept: str) -> bool:
    """Whether an `Accept` header names HTML, and JSON not before it. `*/*` alone (curl, programs) is no wish for HTML."""
    html = json = 0.0
    for item in accept.split(","):
        name, _, parameters = item.strip().lower().partition(";")
        quality = _quality(parameters)
        if name.strip() in _HTML_TYPES:
            html = max(html, quality)
        elif name.strip() == "application/json":
            json = max(json, quality)
    return html > 0 and html >= json


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
