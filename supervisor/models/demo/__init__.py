"""The demo model: a one-million-parameter chat model that lives in the package, so that a fresh install can chat.

How it was made, what it can and cannot do: `MODEL_CARD.md` beside this file. `python -m tools.demo_model all`, in a
checkout, makes it anew.
"""

from pathlib import Path
from typing import Final

DEMO_MODEL_PATH: Final[Path] = Path(__file__).with_name("llamavisor-demo.gguf")
"""The GGUF file of the demo model (Q8_0). A real file: packages are never run from an archive here."""
