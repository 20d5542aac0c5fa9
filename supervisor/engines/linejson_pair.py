"""The two processes of a `linejson` server: started, watched, asked, ended together."""

from __future__ import annotations

import errno
import http.client
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

MODEL, TOKENIZER = "model", "tokenizer"
READY_MARKERS = ("LLM init ok", "Model loaded successfully", "Ready to accept requests", "Server listening")
PROBE_SECONDS = 0.05
ANSWER_SECONDS = 30.0
LINE_LIMIT_BYTES = 16 * 1024**2
READ_BYTES = 65_536


class PairError(Exception):
    """One of the pair did not do what it was asked; the message is for the client."""


class RefusedError(PairError):
    """The model said no, in its own words."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What to run. In the argument lists `${SOCKET}` is a Unix socket in a private folder and `${PORT}` a free port of loopback; each process is told
    one of them, and listens there. The model is ready when a line of its output holds one of `ready_markers` (none given: when it takes connections).
    """

    tokenizer_argv: tuple[str, ...]
    model_argv: tuple[str, ...]
    ready_markers: tuple[str, ...] = READY_MARKERS
    health_path: str = "/health"
    parallel: int = 1


@dataclass(slots=True)
class Member:
    """One of the two: where it listens, its process, and whether its output said that it is ready."""

    name: str
    address: str | int
    process: subprocess.Popen[bytes]
    is_ready: threading.Event = field(default_factory=threading.Event)

    def connect(self) -> socket.socket:
        """A connection to it; OSError while it does not listen."""
        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address))
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise
        return connection


class Pair:
    """See the module. `start` once; `on_end` is called, once, with the member that ended first."""

    def __init__(self, settings: PairSettings, on_end: Callable[[Member], None]) -> None:
        self._settings = settings
        self._on_end = on_end
        self._folder = Path(tempfile.mkdtemp(prefix="lv-pair-"))
        self._ended = threading.Lock()
        self._turns = threading.BoundedSemaphore(settings.parallel)
        self._idle: list[socket.socket] = []
        self.members: dict[str, Member] = {}

    def start(self) -> None:
        """Start both. OSError when one cannot be started."""
        for name, argv in ((TOKENIZER, self._settings.tokenizer_argv), (MODEL, self._settings.model_argv)):
            self.members[name] = self._spawn(name, argv)
        threading.Thread(target=self._await_tokenizer, daemon=True).start()
        if not self._settings.ready_markers:
            threading.Thread(target=self._await_model, daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Both can serve."""
        return len(self.members) == 2 and all(member.is_ready.is_set() for member in self.members.values())

    def end(self, grace_seconds: float) -> None:
        """End both: asked first, then killed."""
        for member in self.members.values():
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for member in self.members.values():
            try:
                member.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    # Asking

    def generate(self, prompt: str, params: Mapping[str, Any], is_gone: Callable[[], bool]) -> str:
        """The model's text. PairError; ConnectionError when the model breaks off; ClientGoneError as soon as `is_gone`, and then so do we."""
        with self._turns:
            connection = self._idle.pop() if self._idle else self._connected()
            try:
                connection.sendall(json.dumps({"prompt": prompt, "params": dict(params)}).encode() + b"\n")
                text = _text_of(_line(connection, is_gone))
            except RefusedError:
                self._idle.append(connection)
                raise
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return text

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. PairError."""
        tokens = self._ask_tokenizer("/encode", {"text": text}).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise PairError("The tokenizer process answered /encode without `tokens`.")
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens. PairError."""
        text = self._ask_tokenizer("/decode", {"tokens": list(tokens)}).get("text")
        if not isinstance(text, str):
            raise PairError("The tokenizer process answered /decode without `text`.")
        return text

    def _ask_tokenizer(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        try:
            status, body = self._http("POST", path, json.dumps(document).encode())
        except (OSError, http.client.HTTPException) as error:
            raise PairError(f"The tokenizer process did not answer {path}: {error}.") from error
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if status >= http.HTTPStatus.BAD_REQUEST or not isinstance(answer, dict):
            raise PairError(
                f"The tokenizer process answered {path} with {status}: {body[:200].decode('utf-8', 'replace')}"
            )
        return answer

    def _http(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_SECONDS)
        connection.sock = self.members[TOKENIZER].connect()
        connection.sock.settimeout(ANSWER_SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _connected(self) -> socket.socket:
        try:
            return self.members[MODEL].connect()
        except OSError as error:
            raise PairError(f"The model process takes no connection: {error.strerror or error}.") from error

    # Watching

    def _spawn(self, name: str, argv: tuple[str, ...]) -> Member:
        if shutil.which(argv[0]) is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such program", argv[0])
        address: str | int = str(self._folder / f"{name}.sock")
        if any("${PORT}" in argument for argument in argv):
            address = _free_port()
        value = str(address)
        command = [argument.replace("${PORT}", value).replace("${SOCKET}", value) for argument in argv]
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        member = Member(name, address, process)
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(member, process.stdout), daemon=True).start()
        return member

    def _read(self, member: Member, output: IO[bytes]) -> None:
        """Pass its output on, see its markers, and notice its end."""
        markers = [marker.encode() for marker in self._settings.ready_markers] if member.name == MODEL else []
        for line in iter(lambda: output.readline(READ_BYTES), b""):
            sys.stderr.buffer.write(b"[%b] %b" % (member.name.encode(), line if line.endswith(b"\n") else line + b"\n"))
            sys.stderr.buffer.flush()
            if any(marker in line for marker in markers):
                member.is_ready.set()
        member.process.wait()
        if self._ended.acquire(blocking=False):
            self._on_end(member)

    def _await_tokenizer(self) -> None:
        member = self.members[TOKENIZER]
        while member.process.poll() is None:
            try:
                status, _ = self._http("GET", self._settings.health_path)
            except (OSError, http.client.HTTPException):
                status = 0
            if status == http.HTTPStatus.OK:
                member.is_ready.set()
                return
            time.sleep(PROBE_SECONDS)

    def _await_model(self) -> None:
        member = self.members[MODEL]
        while member.process.poll() is None:
            try:
                self._idle.append(member.connect())
            except OSError:
                time.sleep(PROBE_SECONDS)
            else:
                member.is_ready.set()
                return


def _line(connection: socket.socket, is_gone: Callable[[], bool]) -> bytes:
    """The next line from the model."""
    parts: list[bytes] = []
    size = 0
    while True:
        if not select.select([connection], [], [], PROBE_SECONDS)[0]:
            if is_gone():
                raise ClientGoneError
            continue
        data = connection.recv(READ_BYTES)
        if not data:
            raise ConnectionAbortedError("the model process closed the connection before it answered")
        head, end, rest = data.partition(b"\n")
        parts.append(head)
        size += len(head)
        if end:
            if rest:
                raise PairError("The model process said more than one line.")
            return b"".join(parts)
        if size > LINE_LIMIT_BYTES:
            raise PairError(f"The model process sent a line of more than {LINE_LIMIT_BYTES} bytes.")


def _text_of(line: bytes) -> str:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("text"), str):
        return str(answer["text"])
    if isinstance(answer, dict) and answer.get("error"):
        raise RefusedError(f"The model process refused: {answer['error']}")
    raise PairError('The model process sent a line that is no {"text": …}.')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ending_of(member: Member) -> str:
    """How a member ended, in words."""
    code = member.process.returncode
    return (
        f"the {member.name} process {f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'}"
    )
