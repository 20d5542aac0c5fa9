"""From the settings of an instance to the plan of its next launch."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.config.diff import PROCESS_FIELDS
from supervisor.config.settings import InstanceSettings
from supervisor.engines.registry import ENGINES
from supervisor.errors import LlamavisorError
from supervisor.fleet.addresses import AddressBook
from supervisor.fleet.models import model_argument
from supervisor.launch import Address, LaunchSpec
from supervisor.models.catalog import Model, ModelListError, discover_models, model_from_file
from supervisor.models.discovery import read_model_file
from supervisor.models.gguf_source import GgufError
from supervisor.process import spawning
from supervisor.process.child import Tags
from supervisor.process.posix import Found
from supervisor.process.probe import Prober
from supervisor.process.states import Cause, Reason
from supervisor.process.watch import CannotPlanError, LaunchPlan

logger = logging.getLogger(__name__)

MODEL_LIST_DEADLINE_SECONDS = 5.0


class Planner:
    """Plans the launches of one instance. `survivor` is taken back at the first launch."""

    def __init__(
        self,
        name: str,
        settings: InstanceSettings,
        folders: tuple[Path, ...],
        addresses: AddressBook,
        run_id: str,
        survivor: Found | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._folders = folders
        self._addresses = addresses
        self._found = survivor
        self._engine = ENGINES[settings.engine.kind]
        self._tags = Tags(run_id, name, settings_digest(settings))

    @property
    def settings(self) -> InstanceSettings:
        """What the next launch follows."""
        return self._settings

    def retune(self, settings: InstanceSettings, folders: tuple[Path, ...]) -> None:
        """Take settings that change nothing about a process that runs, for launches from now on."""
        self._settings = settings
        self._folders = folders

    def survivor(self) -> Found | None:
        """The process that outlived an earlier supervisor, as long as it lives."""
        return self._found if self._found is not None and self._found.identity.is_alive() else None

    async def plan(self, survivor: Found | None) -> LaunchPlan:
        """The plan of the next launch (or of taking back `survivor`); `CannotPlanError` when there is nothing to launch."""
        configured = self._addresses.configured(self._settings)
        try:
            spec = self._spec(configured, survivor, await self._model())
        except LlamavisorError as error:
            raise CannotPlanError(_cause_of(error)) from error
        return LaunchPlan(
            spec=spec,
            tags=self._tags,
            survive=self._settings.survive_supervisor,
            may_adopt=configured is not None and self._settings.adopt,
        )

    async def describe(self, prober: Prober, spec: LaunchSpec) -> tuple[Mapping[str, Any], ...]:
        """The models that a ready server has, in wire shape, with what their files say."""
        return tuple(model.to_wire() for model in await self._models(prober, spec))

    async def _model(self) -> str | None:
        if self._settings.model is None:
            return None
        return await asyncio.to_thread(model_argument, self._settings, self._folders)

    def _spec(self, configured: Address | None, survivor: Found | None, model: str | None) -> LaunchSpec:
        if self._settings.url is not None and configured is not None:
            return self._engine.watch_spec(self._name, self._settings, configured)
        if configured is not None and configured.socket_path is not None:
            self._addresses.clear(configured.socket_path)
        address = configured or _address_of(survivor) or self._chosen()
        try:
            return self._engine.launch_spec(self._name, self._settings, address, model)
        except LlamavisorError:
            self._addresses.release(address)
            raise

    def _chosen(self) -> Address:
        unix_socket = self._engine.uses_unix_socket(self._settings)
        return self._addresses.choose(self._name, self._settings, unix_socket=unix_socket)

    async def _models(self, prober: Prober, spec: LaunchSpec) -> list[Model]:
        known = [spec.model_file] if spec.model_file is not None else []
        try:
            found = await discover_models(
                lambda path: prober.get_json(path, MODEL_LIST_DEADLINE_SECONDS), known_files=known
            )
        except ModelListError as error:
            logger.warning("%s: its list of models was not understood: %s", self._name, error)
            found = []
        return found or await asyncio.to_thread(_model_of_file, spec)


def settings_digest(settings: InstanceSettings) -> str:
    """Names the settings that a process was started with: a survivor with another digest is not taken back."""
    kept = settings.model_dump_json(include=set(PROCESS_FIELDS))
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def _model_of_file(spec: LaunchSpec) -> list[Model]:
    if spec.model_file is not None:
        try:
            return [model_from_file(read_model_file(spec.model_file))]
        except GgufError as error:
            logger.info("%s", error)
    return [Model(id=spec.model_id, name=spec.model_id)] if spec.model_id is not None else []


def _address_of(survivor: Found | None) -> Address | None:
    text = survivor.environ.get(spawning.ADDRESS, "") if survivor is not None else ""
    if text.startswith("unix:"):
        return Address(socket_path=Path(text.removeprefix("unix:")))
    host, _, port = text.removeprefix("http://").rpartition(":")
    return Address(host=host.strip("[]"), port=int(port)) if host and port.isdigit() else None


def _cause_of(error: LlamavisorError) -> Cause:
    reason = Reason(error.code) if error.code in set(Reason) else Reason.BAD_FLAGS
    return Cause(reason, error.message.rstrip("."), remedy=error.remedy, permanent=True)
