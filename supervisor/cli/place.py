"""Where the running server is: flag, environment, data folder, default."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from supervisor.cli.outcome import NoServerError, UsageProblemError

ADDRESS_FILE = "server.json"
API_KEY_VARIABLE = "LLAMAVISOR_API_KEY"
DEFAULT_URL = "http://127.0.0.1:3000"
HEADER_SAFE = frozenset(chr(code) for code in range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where to knock: `url` without a slash at its end; `pid` of the supervisor where its data folder told it."""

    url: str
    api_key: str | None = None
    pid: int | None = None


def find_server(url: str | None, data_folder: Path | None, environ: Mapping[str, str] = os.environ) -> ServerPlace:
    """The place of the running server: `url` (flag or LLAMAVISOR_URL), else the address that the data folder tells, else the default.

    `data_folder` is None when nobody named one: then the platform's is looked at. Of a folder that was named, the default address is never
    a guess: NoServerError when no supervisor runs on it. UsageProblemError for an address or key that cannot be one.
    """
    key = _checked_key(environ.get(API_KEY_VARIABLE) or None)
    if url is not None:
        return ServerPlace(_checked_url(url), key)
    told = _told_by(data_folder if data_folder is not None else _platform_folder())
    if told is not None:
        return ServerPlace(told[0], key, told[1])
    if data_folder is not None:
        raise NoServerError(
            f"No supervisor runs on the data folder {data_folder}.",
            remedy="Start it with `llamavisor serve`, or name another with --data-dir or --url.",
        )
    return ServerPlace(DEFAULT_URL, key)


def _platform_folder() -> Path:
    from supervisor.data_folder import default_data_folder

    return default_data_folder()


def _told_by(folder: Path) -> tuple[str, int] | None:
    """Address and process id that `serve` left in its folder; None when it is gone, for somebody else may have the port by now."""
    try:
        told = json.loads((folder / ADDRESS_FILE).read_text("utf-8"))
        url, pid = _checked_url(str(told["url"])), int(told["pid"])
    except (OSError, ValueError, TypeError, KeyError, UsageProblemError):
        return None
    return (url, pid) if _is_running(pid) else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise UsageProblemError(
            f"{url!r} is no address of a server.", param="url", remedy=f"Write it as {DEFAULT_URL}, with scheme."
        )
    return url.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    if key is not None and not set(key) <= HEADER_SAFE:
        raise UsageProblemError(f"{API_KEY_VARIABLE} holds characters that no key has.", remedy="Set it again.")
    return key
