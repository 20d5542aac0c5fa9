"""The files that describe the project agree with one another, and name nothing they must not."""

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "constraints").glob("*.txt"))
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Each of these makes an environment of its own.
APART = frozenset({"clients.txt", "litellm.txt", "peers.txt"})
NPM_FOLDERS = (ROOT / "static", ROOT / "tests" / "clients_js")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked_entries(lock: Path) -> dict[str, list[str]]:
    """Package name → its lines (one for each platform where versions differ), continuation lines joined."""
    entries: dict[str, list[str]] = {}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            entries.setdefault(canonicalize_name(line.split("==")[0]), []).append(line)
    return entries


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of npm's."""
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


def required_names(requirements: list[str]) -> set[str]:
    """The canonical names in a list of requirement strings, our own extras left out."""
    names: set[str] = {canonicalize_name(Requirement(text).name) for text in requirements}
    return names - {"llamavisor"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_python_lock_has_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links|--trusted-host", text)
    assert all(HASH.search(line) for lines in locked_entries(lock).values() for line in lines)


def test_every_direct_dependency_is_locked() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    runtime = required_names(PYPROJECT["project"]["dependencies"])
    everything = runtime.union(*(required_names(extra) for extra in extras.values()))
    assert runtime <= locked_entries(ROOT / "constraints" / "runtime.txt").keys()
    assert everything <= locked_entries(ROOT / "constraints" / "test.txt").keys()


def test_locks_for_one_environment_agree() -> None:
    """What is installed together has one version of a package (and one set of hashes) in all locks."""
    together = [locked_entries(lock) for lock in LOCKS if lock.name not in APART]
    everything = {name: lines for entries in together for name, lines in entries.items()}
    for entries in together:
        assert {name: everything[name] for name in entries} == entries


@pytest.mark.parametrize("lock", sorted(APART))
def test_an_environment_apart_is_the_lock_of_its_group(lock: str) -> None:
    group = PYPROJECT["dependency-groups"][lock.removesuffix(".txt")]
    assert required_names(group) <= locked_entries(ROOT / "constraints" / lock).keys()


def test_build_requirements_are_the_locked_group() -> None:
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda folder: folder.name)
def test_npm_lock_has_hashes_and_no_addresses(folder: Path) -> None:
    lock = read_json(folder, "package-lock.json")
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert packages
    for path, entry in packages.items():
        assert "resolved" not in entry, path
        assert entry["integrity"].startswith("sha512-"), path


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda folder: folder.name)
def test_npm_lock_is_of_this_package_json(folder: Path) -> None:
    package, lock = read_json(folder, "package.json"), read_json(folder, "package-lock.json")
    kinds = ("dependencies", "devDependencies")
    assert {kind: lock["packages"][""].get(kind) for kind in kinds} == {kind: package.get(kind) for kind in kinds}


def test_versions_agree() -> None:
    version = PYPROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
    assert {read_json(folder, "package-lock.json")["version"] for folder in NPM_FOLDERS} == {version}
    assert metadata.version("llamavisor") == version


def test_bundle_holds_every_entry_and_the_licences_of_what_it_contains() -> None:
    static = ROOT / "web" / "static"
    sources = [*ROOT.glob("static/src/entries/*.ts"), *ROOT.glob("static/css/*.css")]
    built = {source.with_suffix(".js" if source.suffix == ".ts" else ".css").name for source in sources}
    served = set(json.loads((static / "build.json").read_text(encoding="utf-8"))["files"])
    assert built <= served
    assert {name for name in served if not (static / name).is_file()} == set()
    notice = (static / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    for package in ("socket.io-client", "swagger-ui-dist"):
        assert re.search(rf"^{re.escape(package)} \d", notice, re.MULTILINE)


def test_contributing_begins_with_the_one_command() -> None:
    first_line = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("`make test`")


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)) == set(phony[1].split())
