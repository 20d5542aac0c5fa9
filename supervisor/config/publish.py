"""Write the published files that are generated from the settings: `python -m supervisor.config.publish` in the repository's root."""

from __future__ import annotations

import json
from pathlib import Path

from supervisor.config.reference import configuration_reference
from supervisor.config.schema import settings_schema

REFERENCE_FOLDER = Path("docs/reference")


def published_files() -> dict[Path, str]:
    """Return the content of each published file by its path in the repository."""
    return {
        REFERENCE_FOLDER / "config.schema.json": json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n",
        REFERENCE_FOLDER / "configuration.md": configuration_reference(),
    }


def main() -> None:
    """Write every published file below the working directory."""
    for path, content in published_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
