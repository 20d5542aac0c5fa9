"""The data folder: private, one supervisor at a time, and refused where others could reach in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.data_folder import DataFolder
from supervisor.errors import LlamavisorError


def mode(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o777


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.open()
    assert [mode(path) for path in (folder.path, folder.logs, folder.sockets)] == [0o700] * 3
    assert [mode(folder.path / name) for name in ("supervisor.lock", "run_id", "secret")] == [0o600] * 3
    folder.close()


def test_its_words_are_made_once(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        folder = DataFolder(tmp_path / "data")
        folder.open()
        kept.append((folder.run_id, folder.secret))
        folder.close()
    assert kept[0] == kept[1]
    other = DataFolder(tmp_path / "other")
    other.open()
    assert len({folder.run_id, folder.secret, other.run_id, other.secret}) == 4
    other.close()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data")
    first.open()
    first.close()
    first.sockets.chmod(0o755)
    second = DataFolder(tmp_path / "data")
    with pytest.raises(LlamavisorError, match="not a private folder"):
        second.open()
    first.sockets.chmod(0o700)
    # Whoever was refused holds no lock.
    DataFolder(tmp_path / "data").open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data")
    first.open()
    first.close()
    os.chown(first.sockets, 1, 1)
    with pytest.raises(LlamavisorError, match="not a private folder"):
        DataFolder(tmp_path / "data").open()
