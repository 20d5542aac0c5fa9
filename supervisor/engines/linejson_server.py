"""The server of the engine `linejson`: OpenAI routes over a pair of processes, one that tokenizes (over HTTP) and one that generates (JSON lines).

    python -m supervisor.engines.linejson_server --host /run/me/one.sock --model-id tiny --pair '{"tokenizer_argv": […], "model_argv": […]}'

The model takes `{"prompt", "params"}` and answers `{"text"}`, a line each, one request at a time on a connection (`contracts.md` §2); an answer
`{"error"}` is its refusal. The tokenizer answers `POST /encode {"text"}` with `{"tokens"}` and `POST /decode {"tokens"}` with `{"text"}`. When one of
the pair ends, the other is ended too, and the server with it, with the same exit code: whoever supervises the server starts both again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence

from supervisor.engines.linejson_http import Service, listen
from supervisor.engines.linejson_pair import READY_MARKERS, Member, Pair, PairSettings, ending_of

SIGNAL_EXIT = 128
GRACE_SECONDS = 3.0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="linejson_server", description="OpenAI routes over a tokenizer process and a model process."
    )
    parser.add_argument("--host", default="127.0.0.1", help="IP address, or a path that ends in .sock")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--model-id", required=True, help="name of the model in the API")
    parser.add_argument("--pair", required=True, type=pair_settings, help="settings of the two processes, as JSON")
    return parser


def pair_settings(text: str) -> PairSettings:
    """The settings in a JSON object."""
    given = json.loads(text)
    return PairSettings(
        tokenizer_argv=tuple(given["tokenizer_argv"]),
        model_argv=tuple(given["model_argv"]),
        ready_markers=tuple(given.get("ready_markers", READY_MARKERS)),
        health_path=given.get("health_path", "/health"),
        parallel=given.get("parallel", 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = build_parser().parse_args(arguments)
    os.umask(0o077)
    settings = options.pair
    over = threading.Event()
    ended: list[Member] = []

    def on_end(member: Member) -> None:
        ended.append(member)
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    pair = Pair(settings, on_end)
    try:
        pair.start()
        server = listen(options.host, options.port, Service(pair, options.model_id, settings.parallel))
    except OSError as error:
        pair.end(GRACE_SECONDS)
        return complain(f"cannot start: {error.filename or options.host}: {error.strerror}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    over.wait()
    pair.end(GRACE_SECONDS)
    return failure(ended[0]) if ended else 0


def failure(member: Member) -> int:
    """Say which one ended, and how; its exit code, as a shell would give it (a process that ends well has failed all the same)."""
    code = member.process.returncode
    say(ending_of(member))
    return SIGNAL_EXIT - code if code < 0 else code or 1


def complain(message: str) -> int:
    """Say what went wrong; the exit code."""
    say(f"error: {message}")
    return 1


def say(message: str) -> None:
    """A line for the log."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    # Threads that wait for the pair's sockets have nothing to say any more.
    code = main()
    sys.stderr.flush()
    os._exit(code)
