"""The engine `command`: what is put into its placeholders, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.engines.registry import ENGINES
from supervisor.errors import InvalidConfigurationError
from supervisor.launch import Address, LaunchSpec

TCP = Address(host="127.0.0.1", port=8134)
SOCKET = Address(socket_path=Path("/run/a.sock"))
COMMAND = ENGINES["command"]


def settings_of(*argv: str, engine: dict[str, Any] | None = None, **more: Any) -> InstanceSettings:
    return InstanceSettings.model_validate({"engine": {"kind": "command", "argv": argv, **(engine or {})}, **more})


def spec_of(settings: InstanceSettings, address: Address = TCP, model: str | None = None) -> LaunchSpec:
    return COMMAND.launch_spec("main", settings, address, model)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--port=${PORT}", "--port=8134"),
        ("${HOST}:${PORT}", "127.0.0.1:8134"),
        ("${MODEL}", "/m/a b.gguf"),
        ("$${PORT} ${PORT}", "${PORT} 8134"),
        ("$HOME $(id) $$ $", "$HOME $(id) $$ $"),
    ],
)
def test_placeholders_are_filled_and_the_rest_is_left_alone(argument: str, expected: str) -> None:
    spec = spec_of(settings_of("serve", argument, "${PORT}", model="/m/a b.gguf"), model="/m/a b.gguf")
    assert spec.argv == ("serve", expected, "8134")


def test_a_value_is_not_searched_for_placeholders() -> None:
    assert spec_of(settings_of("serve", "${PORT}", "${MODEL}", model="${PORT}"), model="${PORT}").argv[2] == "${PORT}"


def test_the_environment_is_filled_too() -> None:
    settings = settings_of("serve", env={"PORT": "${PORT}", "OTHER": "plain"})
    assert spec_of(settings).env == {"PORT": "8134", "OTHER": "plain"}


@pytest.mark.parametrize(
    ("argv", "env", "wanted"),
    [(("s", "${PORT}"), {}, False), (("s", "--on=${SOCKET}"), {}, True), (("s",), {"LISTEN": "${SOCKET}"}, True)],
)
def test_it_listens_on_a_socket_only_when_it_says_so(argv: tuple[str, ...], env: dict[str, str], wanted: bool) -> None:
    assert COMMAND.uses_unix_socket(settings_of(*argv, env=env)) is wanted


@pytest.mark.parametrize(
    ("argv", "address", "key", "says"),
    [
        (("serve", "${PORT}", "${PROT}"), TCP, "engine.argv", "${PORT}, ${HOST}, ${SOCKET}, ${MODEL}"),
        (("serve", "${PORT}", "${}"), TCP, "engine.argv", "no placeholder"),
        (("serve", "${PORT}", "${MODEL}"), TCP, "engine.argv", "Set `model`"),
        (("serve", "${SOCKET}"), TCP, "engine.argv", "use ${PORT}"),
        (("serve", "${PORT}"), SOCKET, "engine.argv", "use ${SOCKET}"),
        (("serve",), TCP, "engine.argv", "not told where to listen"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_a_remedy(
    argv: tuple[str, ...], address: Address, key: str, says: str
) -> None:
    with pytest.raises(InvalidConfigurationError) as refusal:
        spec_of(settings_of(*argv), address)
    assert refusal.value.param == f"instances.main.{key}"
    assert says in str(refusal.value)


def test_a_fixed_port_needs_no_placeholder() -> None:
    spec = spec_of(settings_of("serve", port=9000), Address(port=9000))
    assert spec.argv == ("serve",)
    assert not spec.address_is_ours


def test_without_argv_a_server_can_only_be_watched() -> None:
    settings = settings_of(url="http://127.0.0.1:9000")
    assert COMMAND.watch_spec("main", settings, TCP).argv == ()
    with pytest.raises(InvalidConfigurationError, match="no command"):
        spec_of(settings)


def test_it_is_watched_through_its_health_path_alone() -> None:
    engine = {"health_path": "/up", "openai": False, "working_directory": "/srv"}
    spec = spec_of(settings_of("serve", "${PORT}", engine=engine))
    assert (spec.probe.health_path, spec.probe.openai, spec.working_directory) == ("/up", False, Path("/srv"))
    assert (spec.probe.counters, spec.probe.canary, spec.probe.signature) == (None, None, None)
