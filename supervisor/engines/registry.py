"""The engines there are: a row and a file each."""

from __future__ import annotations

from supervisor.config.engine_settings import EngineKind
from supervisor.engines.base import Engine
from supervisor.engines.command import Command
from supervisor.engines.embedded import Embedded
from supervisor.engines.linejson import Linejson
from supervisor.engines.llama_server import LlamaServer
from supervisor.engines.vllm import Vllm

ENGINES: dict[EngineKind, Engine] = {
    "embedded": Embedded(),
    "llama-server": LlamaServer(),
    "vllm": Vllm(),
    "linejson": Linejson(),
    "command": Command(),
}
