"""The configuration: settings models, loading (file, environment, flags), difference, JSON Schema, import of old settings."""

from supervisor.config.diff import SettingsDiff, diff_settings
from supervisor.config.engine_settings import (
    CommandEngine,
    EmbeddedEngine,
    EngineKind,
    EngineSettings,
    LlamaFlags,
    LlamaServerEngine,
    VllmEngine,
)
from supervisor.config.legacy import LegacyImport, import_legacy
from supervisor.config.loading import LoadedSettings, find_config, load_settings, validate_tree
from supervisor.config.problems import ConfigError, Problem
from supervisor.config.redaction import redacted, settings_tree
from supervisor.config.reference import configuration_reference
from supervisor.config.schema import settings_schema
from supervisor.config.servable import check_servable
from supervisor.config.server_settings import ServerSettings, TlsSettings, check_exposure
from supervisor.config.settings import (
    DEMO_INSTANCE,
    DEMO_MODEL,
    InstanceSettings,
    LoggingSettings,
    ModelsSettings,
    Settings,
)
from supervisor.config.supervision import SupervisionOverrides, SupervisionSettings

__all__ = [
    "DEMO_INSTANCE",
    "DEMO_MODEL",
    "CommandEngine",
    "ConfigError",
    "EmbeddedEngine",
    "EngineKind",
    "EngineSettings",
    "InstanceSettings",
    "LegacyImport",
    "LlamaFlags",
    "LlamaServerEngine",
    "LoadedSettings",
    "LoggingSettings",
    "ModelsSettings",
    "Problem",
    "ServerSettings",
    "Settings",
    "SettingsDiff",
    "SupervisionOverrides",
    "SupervisionSettings",
    "TlsSettings",
    "VllmEngine",
    "check_exposure",
    "check_servable",
    "configuration_reference",
    "diff_settings",
    "find_config",
    "import_legacy",
    "load_settings",
    "redacted",
    "settings_schema",
    "settings_tree",
    "validate_tree",
]
