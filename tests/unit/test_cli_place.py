"""Where the commands look for the running server."""

import json
import os
from pathlib import Path

import pytest

from supervisor.cli.outcome import NoServerError, UsageProblemError
from supervisor.cli.place import DEFAULT_URL, find_server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The platform's data folder, empty."""
    monkeypatch.setenv("LLAMAVISOR_DATA_DIR", str(tmp_path))
    return tmp_path


def tell(folder: Path, content: object) -> None:
    (folder / "server.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_an_address_that_is_given_wins(folder: Path) -> None:
    tell(folder, {"url": "http://127.0.0.1:4000", "pid": os.getpid()})
    place = find_server("https://far.example/llm/", folder, {})
    assert (place.url, place.pid) == ("https://far.example/llm", None)


def test_the_data_folder_tells_the_address(folder: Path) -> None:
    tell(folder, {"url": "http://127.0.0.1:4000", "pid": os.getpid()})
    place = find_server(None, None, {})
    assert (place.url, place.pid) == ("http://127.0.0.1:4000", os.getpid())


def test_the_address_of_a_server_that_is_gone_is_not_believed(folder: Path) -> None:
    highest = int(Path("/proc/sys/kernel/pid_max").read_text())
    tell(folder, {"url": "http://127.0.0.1:4000", "pid": highest + 1})
    assert find_server(None, None, {}).url == DEFAULT_URL


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        {"url": 1},
        {"url": "http://127.0.0.1:1"},
        {"url": "ftp://x", "pid": 1},
        {"url": "http://h", "pid": -1},
    ],
)
def test_a_damaged_address_file_counts_as_none(folder: Path, content: object) -> None:
    tell(folder, content)
    assert find_server(None, None, {}).url == DEFAULT_URL


def test_a_folder_that_was_named_is_never_passed_over(folder: Path) -> None:
    with pytest.raises(NoServerError, match=r"No supervisor runs on the data folder .*llamavisor serve"):
        find_server(None, folder, {})


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "ftp://host", "http://", "http://h:99999", "http://h:0", "http://h/?a=1", "http://[::1"]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageProblemError, match=r"http://127\.0\.0\.1:3000"):
        find_server(url, None, {})


def test_the_key_comes_from_the_environment(folder: Path) -> None:
    assert find_server("http://h", None, {"LLAMAVISOR_API_KEY": "secret"}).api_key == "secret"
    assert find_server("http://h", None, {"LLAMAVISOR_API_KEY": ""}).api_key is None


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageProblemError) as caught:
        find_server("http://h", None, {"LLAMAVISOR_API_KEY": "sec ret\n"})
    assert "sec" not in str(caught.value)
