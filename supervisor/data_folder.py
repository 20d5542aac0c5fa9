"""The data folder: one supervisor at a time, one RUN_ID and one secret for ever, and a private folder for sockets."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

import platformdirs

from supervisor.errors import DataFolderInUseError, LlamavisorError

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
# The kernel takes 107 bytes for a socket's path; an instance's name takes up to 63, its suffix 5.
SOCKET_FOLDER_LIMIT_BYTES = 38
WORD_CHARACTERS = 32


def default_data_folder() -> Path:
    """`$LLAMAVISOR_DATA_DIR`, else the platform's folder for the user's data."""
    chosen = os.environ.get("LLAMAVISOR_DATA_DIR")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("llamavisor", appauthor=False)


class DataFolder:
    """An open data folder. `path` holds everything kept; `logs` the engines' output; `sockets` the engines' Unix sockets.

    `run_id` is made once for each data folder and put into every child's environment, so that no child can be lost sight of. `secret` is made once,
    too, and told to nobody: what is signed with it is ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.run_id = ""
        self.secret = ""
        self.sockets = self.path / "run"
        self._lock: int | None = None

    def open(self) -> None:
        """Create what is missing and take the lock. `DataFolderInUseError` names the supervisor that holds it."""
        try:
            for folder in (self.path, self.logs):
                folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._take_lock()
            self.run_id = read_run_id(self.path) or self._make("run_id")
            self.secret = _read_word(self.path / "secret") or self._make("secret")
            self.sockets = self._private_socket_folder()
        except OSError as error:
            self.close()
            raise LlamavisorError(
                f"The data folder {self.path} cannot be used: {error.strerror or error}.",
                code="data_folder_unusable",
                remedy="Choose another with --data-dir or LLAMAVISOR_DATA_DIR, or mend its permissions.",
            ) from error

    def close(self) -> None:
        """Give the lock back; idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        descriptor = os.open(self.path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DataFolderInUseError(
                f"Another supervisor (pid {holder or 'unknown'}) runs on the data folder {self.path}.",
                remedy="Stop it with `llamavisor shutdown`, or give this one another folder with --data-dir.",
                details={"pid": holder},
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def _make(self, name: str) -> str:
        word = secrets.token_hex(WORD_CHARACTERS // 2)
        replace_file(self.path / name, word + "\n")
        return word

    def _private_socket_folder(self) -> Path:
        inside = self.path / "run"
        if len(os.fsencode(inside)) <= SOCKET_FOLDER_LIMIT_BYTES:
            folder = inside
        else:
            runtime = os.environ.get("XDG_RUNTIME_DIR", "")
            short = hashlib.sha256(self.run_id.encode()).hexdigest()[:10]
            parent = runtime if runtime and len(runtime) <= SOCKET_FOLDER_LIMIT_BYTES - 14 else tempfile.gettempdir()
            folder = Path(parent if len(parent) <= SOCKET_FOLDER_LIMIT_BYTES - 14 else "/tmp") / f"lv-{short}"
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(0, f"{folder} is not a private folder of ours")
        return folder


def read_run_id(folder: Path) -> str | None:
    """The RUN_ID kept in a data folder; None when there is none (or it was damaged: then a new one is made)."""
    return _read_word(folder / "run_id")


def _read_word(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) == WORD_CHARACTERS and text.isalnum() else None


def replace_file(path: Path, text: str) -> None:
    """Write a small file so that it is whole or not there, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
