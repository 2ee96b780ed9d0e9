"""Reading checkpoint files: format detection, trainers' objects, and files that are not checkpoints."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import gzip
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from repro.errors import UserError
from repro.evaluation.weights.checkpoint_file import read_checkpoint
from repro.evaluation.weights.state_dict import read_state_dict

WEIGHTS = {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}


@dataclasses.dataclass
class Settings:
    mode: str = "a"
    block: tuple[int, int] = (1, 1)


class AttributeDict(dict[str, Any]):
    pass


EXTRAS = {
    "namespace": argparse.Namespace(lr=0.1, output=Path("/out"), clip=None, nested=argparse.Namespace(x=1)),
    "numpy scalars": [np.float64(1.5), np.float32(2), np.int64(3), np.bool_(True)],
    "numpy array": np.arange(4.0),
    "path": Path("a/b"),
    "dataclass": {"config": Settings(), "_step_count": 1},
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "subclass of dict": AttributeDict(lr=1),
    "class": Settings,
    "plain": {"epoch": 3, "scores": (1.0, None, True, b"x", {1, 2}), "big": 2**80},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", EXTRAS)
def test_values_next_to_the_weights_do_not_prevent_reading_them(name: str, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": WEIGHTS, "extra": EXTRAS[name]}, path, _use_new_zipfile_serialization=is_zip)
    state = read_state_dict(path)
    assert state.key == "model"
    assert all(torch.equal(state.weights[key], value) for key, value in WEIGHTS.items())


def test_plain_values_are_restored(tmp_path: Path) -> None:
    extras = {name: EXTRAS[name] for name in ("numpy scalars", "path", "defaultdict", "plain")}
    torch.save(extras, tmp_path / "values.pt")
    values = read_checkpoint(tmp_path / "values.pt").value
    assert values["numpy scalars"] == EXTRAS["numpy scalars"]
    assert str(values["path"]) == "a/b"
    assert values["defaultdict"] == {"a": [1]}
    assert values["plain"] == EXTRAS["plain"]


ran: list[str] = []


class RunsCode:
    """An object whose pickle calls a function when loaded."""

    def __reduce__(self) -> Any:
        return ran.append, ("code of the file",)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("value", [RunsCode(), functools.partial(print, 1)])
def test_objects_that_need_code_are_refused_by_name(value: object, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": WEIGHTS, "extra": value}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError) as refused:
        read_checkpoint(path)
    expected = "getattr" if isinstance(value, RunsCode) else "functools.partial"
    assert expected in str(refused.value)
    assert "torch.save(model.state_dict(), 'weights.pth')" in str(refused.value)
    assert not ran


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_model_is_refused_by_the_names_of_its_classes(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.container\.Sequential.*torch\.save\(model\.state_dict"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights"])
@pytest.mark.parametrize("is_safetensors", [True, False])
def test_the_format_follows_from_the_content(name: str, is_safetensors: bool, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / name) if is_safetensors else torch.save(WEIGHTS, tmp_path / name)
    assert read_state_dict(tmp_path / name).weights.keys() == WEIGHTS.keys()


def other_file(kind: str, path: Path) -> None:
    if kind == "Git LFS pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 22900000\n")
    elif kind == "HTML page":
        path.write_text("\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "gzip":
        path.write_bytes(gzip.compress(b"weights"))
    elif kind == "tar archive":
        with tarfile.open(path, "w") as archive:
            archive.add(__file__, "a.py")
    elif kind == "zip archive, but not of torch.save":
        with path.open("wb") as stream:
            np.savez(stream, a=np.ones(2))
    elif kind == "TorchScript archive":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    elif kind == "empty file":
        path.touch()
    elif kind == "cut off":
        torch.save(WEIGHTS, path)
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "text file":
        path.write_text('{"message": "Not found"}')
    else:
        path.write_bytes(b"\x01\x02" * 300)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
@pytest.mark.parametrize(
    "kind",
    [
        *("Git LFS pointer", "HTML page", "plain pickle", "gzip", "tar archive", "zip archive, but not of torch.save"),
        *("TorchScript archive", "empty file", "cut off", "text file", "not a file of weights"),
    ],
)
def test_other_files_are_named_for_what_they_are(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    other_file(kind, path)
    with pytest.raises(UserError, match=kind) as refused:
        read_state_dict(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_newer_pickle_protocol_is_refused(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "weights.pth", pickle_protocol=4)
    with pytest.raises(UserError, match="saved with another pickle protocol"):
        read_state_dict(tmp_path / "weights.pth")


def examples(folder: Path) -> list[bytes]:
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(a=1)}, folder / "zip")
    torch.save(WEIGHTS, folder / "legacy", _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, folder / "safetensors")
    return [(folder / name).read_bytes() for name in ("zip", "legacy", "safetensors")]


def refusal(path: Path) -> str:
    try:
        weights = read_state_dict(path).weights
    except UserError as error:
        return str(error)
    assert weights
    return ""


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_random_and_damaged_bytes_are_read_or_refused_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "random"
    if not folder.exists():
        folder.mkdir()
        examples(folder)
    start = data.draw(st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", *examples(folder)]))
    content = bytearray(start + data.draw(st.binary(max_size=300)))
    for position in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=5)):
        if content:
            content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = folder / "weights.pth"
    path.write_bytes(content)
    assert "\n" not in refusal(path)
