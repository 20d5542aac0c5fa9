"""How many requests an engine works on at once."""

from __future__ import annotations

from supervisor.config.engine_settings import CommandEngine, VllmEngine
from supervisor.config.settings import InstanceSettings
from supervisor.process.instance import Instance
from supervisor.process.probe import Prober

UNKNOWN_SLOTS = 4
"""What llama.cpp takes by itself; until an engine has told, and for one that does not."""

VLLM_SLOTS = 256
"""vLLM batches continuously, by default as many sequences; it has no slots to ask for."""

ASK_SECONDS = 5.0


def configured_slots(settings: InstanceSettings) -> int | None:
    """The slots that the settings tell; None when the engine has to be asked. An adopted server was not started with our settings."""
    if isinstance(settings.engine, VllmEngine):
        return VLLM_SLOTS
    if isinstance(settings.engine, CommandEngine) or settings.url is not None:
        return None
    return settings.engine.parallel


async def ask_slots(instance: Instance) -> int | None:
    """The slots that a ready engine tells of; None when it does not."""
    spec = instance.watch.spec if instance.watch is not None else None
    if spec is None or spec.probe.slots_path is None:
        return None
    prober = Prober(spec.address, spec.probe)
    try:
        slots = await prober.get_json(spec.probe.slots_path, ASK_SECONDS)
    finally:
        await prober.close()
    return len(slots) if isinstance(slots, list) and slots else None
