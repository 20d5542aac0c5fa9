"""The search for GGUF files in folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from supervisor.models.discovery import DiscoveryLimits, FoundModels, find_models, read_model_file
from supervisor.models.gguf import GgufError
from tests.fixtures.gguf_files import header, minimal, text_pair, write_broken, write_tiny_llama


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def place(tiny: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tiny, path)
    return path


def names(found: FoundModels) -> list[str]:
    return [file.name for file in found.models]


def refusals(found: FoundModels) -> dict[str, str]:
    return {path.name: error.code for path, error in found.unreadable}


def test_models_in_nested_folders_are_found_and_sorted(tmp_path: Path, tiny: Path) -> None:
    for name in ("b.gguf", "a/z.GGUF", "a/deep/er/m.gguf"):
        place(tiny, tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a model")
    found = find_models([tmp_path])
    assert names(found) == ["m", "z", "b"]
    assert (found.companions, found.unreadable, found.cut_short) == ([], [], None)
    model = found.models[2]
    assert (model.path, model.parts) == (tmp_path / "b.gguf", (tmp_path / "b.gguf",))
    assert model.size_bytes == tiny.stat().st_size
    assert model.modified_at == int(model.path.stat().st_mtime)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path, tiny: Path) -> None:
    place(tiny, tmp_path / ".cache/a.gguf")
    place(tiny, tmp_path / ".b.gguf")
    assert find_models([tmp_path]) == FoundModels()


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path, tiny: Path) -> None:
    place(tiny, tmp_path / "good.gguf")
    write_broken(tmp_path / "bad.gguf", "half-downloaded")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "gone.gguf").symlink_to("nowhere")
    found = find_models([tmp_path])
    assert names(found) == ["good"]
    assert refusals(found) == {"bad.gguf": "truncated", "pipe.gguf": "not_gguf", "gone.gguf": "unreadable"}


def test_companions_are_marked(tmp_path: Path) -> None:
    projector = header(pairs=2) + text_pair("general.architecture", "clip") + text_pair("general.type", "mmproj")
    (tmp_path / "mmproj.gguf").write_bytes(projector)
    (tmp_path / "lora.gguf").write_bytes(minimal(text_pair("general.type", "adapter")))
    (tmp_path / "vocab.gguf").write_bytes(minimal())
    found = find_models([tmp_path])
    assert found.models == []
    assert {file.name: file.kind for file in found.companions} == {
        "mmproj": "projector",
        "lora": "adapter",
        "vocab": "vocabulary",
    }


def test_parts_make_one_model(tmp_path: Path, tiny: Path) -> None:
    write_tiny_llama(tmp_path / "big.gguf", split_max_tensors=8)
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 3
    [model] = find_models([tmp_path]).models
    whole = read_model_file(tiny).header
    assert (model.name, model.path, model.parts) == ("big", parts[0], tuple(parts))
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    assert (model.header.parameter_count, model.header.tensor_count) == (whole.parameter_count, whole.tensor_count)
    assert (model.header.architecture, model.header.quantisation) == ("llama", "F16")
    assert read_model_file(parts[1]) == model


def test_missing_part_is_named(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "big.gguf", split_max_tensors=8)
    (tmp_path / "big-00002-of-00003.gguf").unlink()
    found = find_models([tmp_path])
    assert names(found) == []
    [(path, error)] = found.unreadable
    assert (path.name, error.code) == ("big-00001-of-00003.gguf", "incomplete")
    assert "missing: 2" in error.message


def test_broken_part_spoils_the_model(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "big.gguf", split_max_tensors=8)
    os.truncate(tmp_path / "big-00003-of-00003.gguf", 200)
    found = find_models([tmp_path])
    assert (names(found), refusals(found)) == ([], {"big-00003-of-00003.gguf": "truncated"})


def test_renamed_part_says_how_it_must_be_named(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "big.gguf", split_max_tensors=8)
    (tmp_path / "big-00001-of-00003.gguf").rename(tmp_path / "model.gguf")
    found = find_models([tmp_path])
    errors = {path.name: error for path, error in found.unreadable}
    assert "NAME-00001-of-00003.gguf" in str(errors["model.gguf"])


def test_links_within_the_folder_are_followed_once(tmp_path: Path, tiny: Path) -> None:
    """As in the Hugging Face cache: snapshots link to blobs."""
    place(tiny, tmp_path / "blobs/0123")
    for snapshot in ("a", "b"):
        (tmp_path / "snapshots" / snapshot).mkdir(parents=True)
        (tmp_path / "snapshots" / snapshot / "m.gguf").symlink_to("../../blobs/0123")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "snapshots/up").symlink_to("..")
    found = find_models([tmp_path, tmp_path / "snapshots", tmp_path / "loop"])
    assert [model.path for model in found.models] == [tmp_path / "snapshots/a/m.gguf"]
    assert found.unreadable == []


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, tiny: Path) -> None:
    place(tiny, tmp_path / "elsewhere/m.gguf")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file.gguf").symlink_to("../elsewhere/m.gguf")
    (inside / "folder").symlink_to("../elsewhere")
    found = find_models([inside])
    assert names(found) == []
    assert refusals(found) == {"file.gguf": "outside_folder", "folder": "outside_folder"}


def test_folder_that_is_itself_a_link_is_searched(tmp_path: Path, tiny: Path) -> None:
    place(tiny, tmp_path / "real/m.gguf")
    (tmp_path / "link").symlink_to("real")
    assert names(find_models([tmp_path / "link"])) == ["m"]


def test_folder_that_cannot_be_searched_is_told(tmp_path: Path, tiny: Path) -> None:
    found = find_models([tmp_path / "missing", tiny, Path("nul\0name")])
    assert [error.code for _, error in found.unreadable] == ["unreadable"] * 3
    assert all("models.folders" in str(error) for _, error in found.unreadable)


def test_depth_limit(tmp_path: Path, tiny: Path) -> None:
    place(tiny, tmp_path / "1/2/shallow.gguf")
    place(tiny, tmp_path / "1/2/3/deep.gguf")
    assert names(find_models([tmp_path], limits=DiscoveryLimits(depth=2))) == ["shallow"]


def test_limits_end_the_search_and_say_so(tmp_path: Path, tiny: Path) -> None:
    for name in ("a", "b", "c"):
        place(tiny, tmp_path / f"{name}.gguf")
    by_files = find_models([tmp_path], limits=DiscoveryLimits(files=2))
    assert len(by_files.models) == 2
    assert "2 GGUF files" in (by_files.cut_short or "")
    by_entries = find_models([tmp_path], limits=DiscoveryLimits(entries=2))
    assert "2 names" in (by_entries.cut_short or "")


@pytest.mark.parametrize("name", ["missing.gguf", "missing-00001-of-00002.gguf", "nul\0.gguf"])
def test_one_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(GgufError) as caught:
        read_model_file(tmp_path / name)
    assert caught.value.code == "unreadable"
