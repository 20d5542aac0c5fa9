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
NPM_LOCK: dict[str, Any] = json.loads((ROOT / "static" / "package-lock.json").read_text(encoding="utf-8"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked_entries(lock: Path) -> dict[str, list[str]]:
    """Package name → its lines (one for each platform where versions differ), continuation lines joined."""
    entries: dict[str, list[str]] = {}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            entries.setdefault(canonicalize_name(line.split("==")[0]), []).append(line)
    return entries


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
    """All but what is measured against are installed together, so a package has one version (and one set of hashes) in all of them."""
    together = [locked_entries(lock) for lock in LOCKS if lock.name not in ("litellm.txt", "peers.txt")]
    everything = {name: lines for entries in together for name, lines in entries.items()}
    for entries in together:
        assert {name: everything[name] for name in entries} == entries


def test_build_requirements_are_the_locked_group() -> None:
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]


def test_npm_lock_has_hashes_and_no_addresses() -> None:
    packages = {path: entry for path, entry in NPM_LOCK["packages"].items() if path}
    assert packages
    for path, entry in packages.items():
        assert "resolved" not in entry, path
        assert entry["integrity"].startswith("sha512-"), path


def test_npm_lock_is_of_this_package_json() -> None:
    package = json.loads((ROOT / "static" / "package.json").read_text(encoding="utf-8"))
    locked = NPM_LOCK["packages"][""]
    assert {key: locked[key] for key in ("dependencies", "devDependencies")} == {
        key: package[key] for key in ("dependencies", "devDependencies")
    }


def test_versions_agree() -> None:
    version = PYPROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
    assert NPM_LOCK["version"] == version
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
