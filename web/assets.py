"""The bundled browser code: found beneath one folder, addressed by the hash of its content, so that it may be cached for ever."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from supervisor.errors import NotFoundError

STATIC_FOLDER = Path(__file__).parent / "static"
HASH_CHARACTERS = 12
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
# The bundler puts a hash into the names of these itself.
_HASHED_FOLDERS = frozenset({"chunks", "assets"})


class Assets:
    """The files beneath `folder`. A file is hashed when it is first named, and again when it changed on disk."""

    def __init__(self, folder: Path = STATIC_FOLDER) -> None:
        self._folder = folder
        self._hashes: dict[str, tuple[int, str]] = {}

    def path(self, name: str) -> Path:
        """The file called `name` (with `/` between folders). NotFoundError for anything that is not a plain file beneath the folder."""
        if all(_PART.match(part) for part in name.split("/")):
            path = self._folder.joinpath(name).resolve()
            if path.is_relative_to(self._folder.resolve()) and path.is_file():
                return path
        raise NotFoundError(
            f"There is no asset {name[:200]!r}.", remedy="Build the browser code with `make front-end`."
        )

    def digest(self, name: str) -> str:
        """The first characters of the SHA-256 (hex) of a file's content."""
        path = self.path(name)
        changed = path.stat().st_mtime_ns
        known = self._hashes.get(name)
        if known is None or known[0] != changed:
            known = (changed, hashlib.sha256(path.read_bytes()).hexdigest()[:HASH_CHARACTERS])
            self._hashes[name] = known
        return known[1]

    def url(self, name: str) -> str:
        """Where a page finds a file; the template function `static_url`. A file that is not there has an address too: it answers 404."""
        try:
            return f"/static/{name}?v={self.digest(name)}"
        except NotFoundError:
            return f"/static/{name}"

    def cache_control(self, name: str, version: str | None) -> str:
        """How long the answer may be kept: for ever when its address names its content."""
        is_hashed = name.partition("/")[0] in _HASHED_FOLDERS or version == self.digest(name)
        return IMMUTABLE if is_hashed else REVALIDATE
