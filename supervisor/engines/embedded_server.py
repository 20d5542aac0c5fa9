"""`llama-server` without a compiler: llama.cpp's own HTTP server, from the PyPI wheel `xllamacpp`, behind llama-server's own flags.

Run it as `python -m supervisor.engines.embedded_server -m MODEL.gguf`, or by the path of this file. It imports nothing of the rest of Llamavisor, so
that the start costs little. Exit codes: 0 after SIGTERM, SIGINT or the end of stdin; 1 when the engine could not serve; 2 on bad flags.

While the model loads, the native constructor holds Python's global lock: no handler of ours could run, so signals keep their default action until
the server is up. The end of stdin must be noticed then too; that is why the kernel, not a thread, turns it into SIGTERM.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

DIE_WITH_PARENT = "LLAMAVISOR_DIE_WITH_PARENT"
API_KEY = "LLAMA_API_KEY"
PR_SET_PDEATHSIG = 1
STDIN = 0
DEFAULT_PORT = 8080
AUTO_SLOTS = 4
SEED_BITS = 0xFFFF_FFFF
VERBOSITY_INFO = 3
VERBOSITY_EVERYTHING = 2**31 - 1
PORTS = range(65536)
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
POOLING = ("none", "mean", "cls", "last", "rank")
SAMPLING_BITS = {"top_k": 1 << 1, "top_p": 1 << 2, "temp": 1 << 6, "penalty_repeat": 1 << 8}

DESCRIPTION = (
    "Serve a GGUF model with llama.cpp over HTTP: the OpenAI routes, /health, /props, /slots, /metrics and /tokenize."
)
EPILOG = f"""examples:
  %(prog)s -m model.gguf                                on http://127.0.0.1:{DEFAULT_PORT}, {AUTO_SLOTS} requests at a time
  %(prog)s -m model.gguf --host /run/me/llama.sock       on a Unix socket: no port to steal, no browser can reach it
  %(prog)s -m model.gguf -c 8192 -np 2 -ctk q8_0         8192 tokens of context shared by two slots, smaller cache

keys: put one into the environment variable {API_KEY}, or several into --api-key-file, one a line. There is no --api-key:
every user of the machine can read a command line. {DIE_WITH_PARENT}=1 ends the server with the process that started it."""


def flag_on_off(text: str) -> str:
    """Check the value of `-fa`; raises ValueError with what is allowed."""
    values = {"on": "on", "1": "on", "true": "on", "off": "off", "0": "off", "false": "off", "auto": "auto"}
    if text not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of on, off, auto")
    return values[text]


def port_number(text: str) -> int:
    """A TCP port, 0 for any free one."""
    if not text.isdigit() or int(text) not in PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def at_least(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` up."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


class Parser(argparse.ArgumentParser):
    """Says what is wrong in llama-server's words, so that one failure pattern knows both."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"error: invalid argument: {message}\nTry --help.\n")


def build_parser() -> Parser:
    """The command line: llama-server's names and defaults for the flags that Llamavisor uses."""
    parser = Parser(
        prog="embedded_server",
        usage="%(prog)s -m MODEL.gguf [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_flags(parser.add_argument_group("where and for whom"))
    add_model_flags(parser.add_argument_group("model and cache"))
    add_hardware_flags(parser.add_argument_group("hardware"))
    add_sampling_flags(parser.add_argument_group("sampling, where a request does not say"))
    return parser


def add_server_flags(group: argparse._ArgumentGroup) -> None:
    """Address, routes, keys, talkativeness."""
    add = group.add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="IP address, or a path that ends in .sock (default: %(default)s)",
    )
    add(
        "--port",
        type=port_number,
        default=DEFAULT_PORT,
        metavar="N",
        help="TCP port, 0 = any free one (default: %(default)s)",
    )
    add("-a", "--alias", metavar="NAME", help="name of the model in the API (default: its path)")
    add("--api-key-file", type=Path, metavar="FILE", help="keys that clients must present, one a line")
    add("--metrics", action="store_true", help="serve GET /metrics (Prometheus)")
    add("--slots", action=argparse.BooleanOptionalAction, default=True, help="serve GET /slots")
    add("--webui", "--ui", action=argparse.BooleanOptionalAction, default=False, help="serve llama.cpp's own page at /")
    add("--embedding", "--embeddings", action="store_true", help="serve embeddings")
    add(
        "--pooling",
        choices=POOLING,
        metavar="TYPE",
        help=f"of embeddings, where the model does not say: {', '.join(POOLING)}",
    )
    add("--jinja", action=argparse.BooleanOptionalAction, default=True, help="use the model's own chat template")
    add(
        "-v",
        "--verbose",
        action="store_const",
        dest="verbosity",
        const=VERBOSITY_EVERYTHING,
        default=VERBOSITY_INFO,
        help="print everything",
    )
    add("-lv", "--verbosity", type=int, default=VERBOSITY_INFO, metavar="N", help="0 to 5 (default: %(default)s)")


def add_model_flags(group: argparse._ArgumentGroup) -> None:
    """The model, its context, its slots, its cache."""
    add, count = group.add_argument, at_least(1)
    add("-m", "--model", required=True, metavar="FILE", help="GGUF file")
    add(
        "-c",
        "--ctx-size",
        type=at_least(0),
        default=0,
        metavar="TOKENS",
        help="context; 0 = what the model was trained with (default)",
    )
    add(
        "-np",
        "--parallel",
        type=at_least(-1),
        default=-1,
        metavar="SLOTS",
        help=f"requests at a time (default: {AUTO_SLOTS}, sharing the context)",
    )
    add("-b", "--batch-size", type=count, metavar="TOKENS", help="prompt tokens a step, logical (default: 2048)")
    add("-ub", "--ubatch-size", type=count, metavar="TOKENS", help="prompt tokens a step, physical (default: 512)")
    add(
        "-ctk",
        "--cache-type-k",
        choices=CACHE_TYPES,
        default="f16",
        metavar="TYPE",
        help=f"keys of the cache: {', '.join(CACHE_TYPES)}",
    )
    add(
        "-ctv",
        "--cache-type-v",
        choices=CACHE_TYPES,
        default="f16",
        metavar="TYPE",
        help="values of the cache: the same",
    )


def add_hardware_flags(group: argparse._ArgumentGroup) -> None:
    """Threads, GPU, memory."""
    add = group.add_argument
    add(
        "-t",
        "--threads",
        type=at_least(-1),
        default=-1,
        metavar="N",
        help="threads that generate (default: one a core)",
    )
    add(
        "-tb",
        "--threads-batch",
        type=at_least(-1),
        metavar="N",
        help="threads that read prompts (default: as --threads)",
    )
    add(
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        type=at_least(-1),
        default=-1,
        metavar="N",
        help="layers on the GPU (default: what fits)",
    )
    add("-mg", "--main-gpu", type=at_least(0), default=0, metavar="N", help="the GPU for small tensors (default: 0)")
    add(
        "-fa",
        "--flash-attn",
        type=flag_on_off,
        nargs="?",
        const="on",
        default="auto",
        metavar="on|off|auto",
        help="flash attention (default: auto)",
    )
    add("--mlock", action="store_true", help="keep the model in memory, never swapped out")
    add("--mmap", action=argparse.BooleanOptionalAction, default=True, help="map the file instead of reading it")


def add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    """Defaults that a request may override."""
    add = group.add_argument
    add("--temp", "--temperature", type=float, metavar="T", help="0 = always the likeliest token (default: 0.8)")
    add("--top-k", type=at_least(0), metavar="N", help="among the N likeliest, 0 = all (default: 40)")
    add("--top-p", type=float, metavar="P", help="among the likeliest that sum to P (default: 0.95)")
    add("--repeat-penalty", type=float, metavar="X", help="1 = none (default: 1)")
    add(
        "-n",
        "--predict",
        "--n-predict",
        type=at_least(-1),
        default=-1,
        metavar="TOKENS",
        help="at most so many, -1 = no limit (default)",
    )
    add("-s", "--seed", type=at_least(-1), default=-1, metavar="N", help="-1 = random (default)")


def configure(options: argparse.Namespace, keys: Sequence[str]) -> Any:
    """Make xllamacpp's `CommonParams` of parsed options. `keys` are the API keys; none leaves the server open."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias} if options.alias else set()
    params.hostnames, params.port = [options.host], options.port
    params.api_keys = list(keys)
    # llama.cpp's default lets every web page read every answer; no page needs to talk to the engine past Llamavisor.
    params.cors_origins, params.cors_credentials = "", False
    params.endpoint_metrics, params.endpoint_slots = options.metrics, options.slots
    params.ui, params.use_jinja, params.embedding = options.webui, options.jinja, options.embedding
    if options.pooling:
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{options.pooling.upper()}"]
    params.verbosity, params.n_predict = options.verbosity, options.predict
    set_memory(params, options, xllamacpp)
    set_sampling(params.sampling, options)
    return params


def set_memory(params: Any, options: argparse.Namespace, xllamacpp: Any) -> None:
    """Context, slots, threads and what lies on the GPU."""
    params.n_ctx, params.n_gpu_layers, params.main_gpu = options.ctx_size, options.gpu_layers, options.main_gpu
    params.kv_unified = options.parallel < 1
    params.n_parallel = AUTO_SLOTS if params.kv_unified else options.parallel
    params.n_batch = options.batch_size or params.n_batch
    params.n_ubatch = options.ubatch_size or params.n_ubatch
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads if options.threads_batch is None else options.threads_batch
    flash = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[options.flash_attn]
    params.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{flash}"]
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{options.cache_type_k.upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{options.cache_type_v.upper()}"]
    if options.mlock or not options.mmap:
        mode = {(True, True): "MMAP_MLOCK", (True, False): "MLOCK", (False, False): "NONE"}[options.mlock, options.mmap]
        params.load_mode = xllamacpp.llama_load_mode[f"LLAMA_LOAD_MODE_{mode}"]


def set_sampling(sampling: Any, options: argparse.Namespace) -> None:
    """Sampling defaults; the bits tell llama.cpp that a person chose them, else the model file's own defaults would win."""
    sampling.seed = options.seed & SEED_BITS
    chosen = {
        "temp": options.temp,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "penalty_repeat": options.repeat_penalty,
    }
    for name, value in chosen.items():
        if value is not None:
            setattr(sampling, name, value)
            sampling.user_sampling_config |= SAMPLING_BITS[name]


def read_keys(key_file: Path | None, environ: Mapping[str, str]) -> list[str]:
    """The API keys of the file and of the environment. Raises OSError when the file cannot be read."""
    lines = key_file.read_text(encoding="utf-8").splitlines() if key_file else []
    return [key for key in (*(line.strip() for line in lines), environ.get(API_KEY, "")) if key]


def remove_stale_socket(path: Path) -> None:
    """Unlink a socket that nobody listens on: its server was killed, and llama.cpp would refuse to bind over it."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the thread that started us ends (Linux; elsewhere stdin's end is the only way)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def stdin_has_a_writer_to_watch() -> bool:
    """Whether stdin is a pipe or socket; a terminal, a file and /dev/null tell nothing about who started us."""
    try:
        mode = os.fstat(STDIN).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def end_with_stdin() -> None:
    """Have the kernel send SIGTERM when stdin's last writer goes away (Linux), also while native code holds Python's lock."""
    if sys.platform == "linux":
        fcntl.fcntl(STDIN, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(STDIN, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(STDIN, fcntl.F_SETFL, fcntl.fcntl(STDIN, fcntl.F_GETFL) | os.O_ASYNC)
    poller = select.poll()
    poller.register(STDIN, 0)
    if poller.poll(0):
        raise SystemExit(0)


def wait_for_the_end(watch_stdin: bool, address: str) -> None:
    """Say on stderr that signals are heeded from now on; sleep, without a wake-up, until SIGTERM, SIGINT or the end of stdin.

    Nobody is to write to stdin: the kernel does not tell a byte from the end.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Python must have a handler for the wake-up to be written; the end of stdin may send the signal more than once.
        signal.signal(number, lambda *_: None)
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    if watch_stdin:
        poller.register(STDIN, 0)
    report(f"serving: {address}")
    poller.poll()
    report(f"stopped: {address}")


def serve(params: Any, watch_stdin: bool) -> int:
    """Load, listen, wait for the end, exit with 0. Returns 1 when llama.cpp gave up; it has said why on stderr by then."""
    import xllamacpp

    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        return 1
    wait_for_the_end(watch_stdin, server.listening_address)
    # No destructor of `server`: it cuts streams just the same, but waits for up to a minute when requests are queued.
    os._exit(0)


def report(message: str) -> None:
    """Write a line to stderr, where llama.cpp's own lines go."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def complain(message: str) -> int:
    """Say what went wrong; the exit code."""
    report(f"error: {message}")
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = build_parser().parse_args(arguments)
    os.umask(0o077)
    if os.environ.get(DIE_WITH_PARENT) == "1":
        die_with_parent()
    watch_stdin = stdin_has_a_writer_to_watch()
    if watch_stdin:
        end_with_stdin()
    try:
        with open(options.model, "rb"):
            pass
        keys = read_keys(options.api_key_file, os.environ)
    except OSError as error:
        what = "failed to load model" if error.filename == options.model else "cannot read the API keys"
        return complain(f"{what}, '{error.filename}': {error.strerror}")
    if options.host.endswith(".sock"):
        remove_stale_socket(Path(options.host))
    return serve(configure(options, keys), watch_stdin)


if __name__ == "__main__":
    raise SystemExit(main())
