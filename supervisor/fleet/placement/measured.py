"""What was measured of instances, kept in the data folder from run to run: it corrects the estimates."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor.data_folder import replace_file
from supervisor.fleet.placement.memory import at_least
from supervisor.fleet.placement.resources import Amounts

logger = logging.getLogger(__name__)

FORMAT = 1
# A peak that does not come again is forgotten over some ten runs.
KEPT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Measured:
    """The most that an instance took, by resource, and how long it took to load; of the settings and the model that `digest` names."""

    digest: str
    peak: Amounts = field(default_factory=dict)
    load_seconds: float | None = None


class MeasuredBook:
    """The measurements by instance. Reading the file at the start and `save` block; a file that cannot be read is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read(path)
        self._is_saved = True
        self._saving = asyncio.Lock()

    def of(self, name: str, digest: str) -> Measured | None:
        """What was measured of an instance with just these settings and this model."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.digest == digest else None

    def note(self, name: str, digest: str, taken: Amounts, *, load_seconds: float | None = None) -> None:
        """Take a measurement in: a larger one counts at once, a smaller one by and by."""
        before = self.of(name, digest) or Measured(digest)
        kept = {resource: round(amount * KEPT_SHARE) for resource, amount in before.peak.items()}
        entry = Measured(digest, at_least(kept, taken), before.load_seconds if load_seconds is None else load_seconds)
        if taken and entry != self._entries.get(name):
            self._entries[name] = entry
            self._is_saved = False

    async def save(self) -> None:
        """Write what is new, off the loop. A disk that takes nothing costs the correction of the next run, and nothing else."""
        async with self._saving:
            if self._is_saved:
                return
            self._is_saved = True
            entries = {name: asdict(entry) for name, entry in self._entries.items()}
            try:
                await asyncio.to_thread(
                    replace_file, self._path, json.dumps({"format": FORMAT, "instances": entries}, indent=1)
                )
            except OSError as error:
                logger.warning("What models take of memory could not be noted in %s: %s", self._path, error)


def _read(path: Path) -> dict[str, Measured]:
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            return {}
        return {name: _entry(values) for name, values in content["instances"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("What was measured in earlier runs cannot be read from %s: %s", path, error)
        return {}


def _entry(values: Any) -> Measured:
    seconds = values["load_seconds"]
    peak = {str(resource): int(amount) for resource, amount in values["peak"].items()}
    return Measured(str(values["digest"]), peak, None if seconds is None else float(seconds))
