"""From the `model` of an instance's settings to what its engine is given."""

from __future__ import annotations

from pathlib import Path

from supervisor.config.settings import DEMO_MODEL, InstanceSettings
from supervisor.config.suggestions import nearest
from supervisor.errors import LlamavisorError
from supervisor.models.demo import DEMO_MODEL_PATH
from supervisor.models.discovery import find_models

# What these call a model may be a hub's name, or anything else that their program understands.
KINDS_WITHOUT_FILES = frozenset({"vllm", "command", "linejson"})


class ModelFileNotFoundError(LlamavisorError):
    """The configured model is not there."""

    code, status = "bad_model", 422


def model_argument(settings: InstanceSettings, folders: tuple[Path, ...]) -> str | None:
    """The path (or, for vLLM, the hub name) that the engine is given; None when the instance names no model.

    `ModelFileNotFoundError` when it is a file and is not there, with the nearest name that is.
    """
    model = settings.model
    kind = settings.engine.kind
    if model == DEMO_MODEL and kind != "vllm":
        return str(DEMO_MODEL_PATH)
    if model is None or kind in KINDS_WITHOUT_FILES:
        return model
    if "/" in model or model.endswith(".gguf"):
        return str(_existing(Path(model)))
    return str(_named(model, folders))


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ModelFileNotFoundError(
            f"the model file {path} does not exist", param="model", remedy="Check `model` in the configuration."
        )
    return path


def _named(name: str, folders: tuple[Path, ...]) -> Path:
    found = {file.name: file.path for file in find_models(folders).models}
    if name in found:
        return found[name]
    close = nearest(name, found)
    where = ", ".join(map(str, folders)) or "none are configured"
    raise ModelFileNotFoundError(
        f"no model named {name!r} is in the model folders ({where})",
        param="model",
        remedy=f"Did you mean {close!r}?"
        if close
        else "Give a path to a GGUF file, or add its folder to `models.folders`.",
    )
