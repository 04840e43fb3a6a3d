"""Files of others: weights are found wherever they lie, and nothing in a file is ever run."""

from __future__ import annotations

import argparse
import functools
import io
import os
import pathlib
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import CheckpointError
from harness.pretrain import foreign, unpickle

FORMATS: dict[str, dict[str, Any]] = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 4": {"pickle_protocol": 4},
}
each_format = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    found: dict[str, Tensor] = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    return found


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


# --- where weights lie -------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("wrapper", ["", *foreign.WRAPPERS])
def test_weights_lie_at_the_top_or_one_below(tmp_path: Path, options: dict[str, Any], wrapper: str) -> None:
    torch.save({wrapper: state(), "epoch": 3} if wrapper else state(), tmp_path / "x.pth", **options)
    assert_equal(foreign.weights_of(tmp_path / "x.pth"), state())


@each_format
def test_weights_lie_beside_objects_of_packages_that_are_not_here(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    package = ModuleType("not_installed_here")
    package.Config = type("Config", (dict,), {"__module__": package.__name__})  # type: ignore[attr-defined]
    sys.modules[package.__name__] = package
    config = package.Config(layers=[1, 2])
    config.parent = package.Config()
    content = {
        "state_dict": state(),
        "hyper_parameters": config,
        "hparams_type": package.Config,
        "arguments": argparse.Namespace(lr=0.1, sizes=(1, 2, 3, 4), names={"a", "b"}),
        "callbacks": {package.Config: {"best": np.float64(0.5), "at": pathlib.Path("runs"), "raw": b"x"}},
        "history": defaultdict(list, {"loss": [1.5, None, True, -3, 2**40, 2**80]}),
        "curve": np.arange(3),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    }
    torch.save(content, tmp_path / "x.ckpt", **options)
    del sys.modules["not_installed_here"]
    assert_equal(foreign.weights_of(tmp_path / "x.ckpt"), state())


def test_weights_saved_within_data_parallel_lose_its_prefix(tmp_path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in state().items()}, tmp_path / "x.pth")
    assert_equal(foreign.weights_of(tmp_path / "x.pth"), state())


def test_safetensors(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "x.safetensors")
    found = foreign.weights_of(tmp_path / "x.safetensors")
    assert_equal(dict(sorted(found.items())), dict(sorted(state().items())))


NO_WEIGHTS = {
    "no mapping": (torch.zeros(3), "It holds a Tensor"),
    "numbers": ({"epoch": 3, "loss": 0.5}, "It holds epoch, loss"),
    "something between": ({"a": torch.zeros(1), "b": "text"}, "It holds a, b"),
    "a sparse tensor": ({"a": torch.eye(2).to_sparse()}, "It holds a"),
    "nothing": ({"state_dict": {}}, "It holds state_dict"),
}


@pytest.mark.parametrize(("content", "held"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_file_without_weights_is_said(tmp_path: Path, content: Any, held: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth has no names with tensors, .*{held}.*Save the"):
        foreign.weights_of(tmp_path / "x.pth")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "legacy.pth"])
@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_said_without_advice_to_trust_it(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    if name == "x.safetensors":
        save_file(state(), tmp_path / name)
    else:
        torch.save(state(), tmp_path / name, _use_new_zipfile_serialization=name == "x.pth")
    damage(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        foreign.weights_of(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "weights_only" not in str(caught.value)


# --- what a file may not do --------------------------------------------------------------------------


class Calling:
    """Pickled, it is a call that whoever unpickles it makes."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def touching(path: Path) -> Any:
    return Calling(os.system, f"touch {path}")


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shell": (touching, "posix.system"),
    "eval": (lambda path: Calling(eval, f"open({str(path)!r}, 'w').close()"), "builtins.eval"),
    "exec": (lambda path: Calling(exec, f"open({str(path)!r}, 'w').close()"), "builtins.exec"),
    "a copy": (lambda path: Calling(shutil.copy, __file__, str(path)), "shutil.copy"),
    "a method": (lambda path: Calling(path.touch), "builtins.getattr"),
    "a partial call": (lambda path: Calling(functools.partial(os.system, f"touch {path}")), "functools"),
    "within hyper-parameters": (
        lambda path: {"state_dict": state(), "hyper_parameters": {"a": [{"b": touching(path)}]}},
        "posix.system",
    ),
    "as an argument of a call that is answered": (
        lambda path: Calling(OrderedDict, [("a", touching(path))]),
        "posix.system",
    ),
    "as an attribute of the weights": (
        lambda path: {"state_dict": with_attribute(state(), touching(path))},
        "posix.system",
    ),
    "as a key": (lambda path: {touching(path): 1}, "posix.system"),
}


def with_attribute(weights: dict[str, Tensor], value: object) -> dict[str, Tensor]:
    weights.extra = value  # type: ignore[attr-defined]
    return weights


@each_format
@pytest.mark.parametrize(("attack", "named"), ATTACKS.values(), ids=ATTACKS)
def test_a_file_that_calls_something_is_refused_and_nothing_runs(
    tmp_path: Path, attack: Callable[[Path], object], named: str, options: dict[str, Any]
) -> None:
    path, flag = tmp_path / "x.ckpt", tmp_path / "it-ran"
    torch.save(attack(flag), path, **options)
    torch.load(path, weights_only=False)
    assert flag.exists(), "no attack: the test below would hold for any file"
    flag.unlink()
    with pytest.raises(
        CheckpointError, match=rf"x\.ckpt is refused: it calls {named}.*Nothing of it was run"
    ):
        foreign.weights_of(path)
    assert not flag.exists()


def test_a_module_that_a_file_names_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "it-ran"
    (tmp_path / "waiting.py").write_text("class Config: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import waiting  # type: ignore[import-not-found]

    torch.save(
        {"state_dict": state(), "config": waiting.Config(), "type": waiting.Config}, tmp_path / "x.ckpt"
    )
    del sys.modules["waiting"]
    (tmp_path / "waiting.py").write_text(f"open({str(flag)!r}, 'w').close()\nclass Config: ...\n")
    assert_equal(foreign.weights_of(tmp_path / "x.ckpt"), state())
    assert not flag.exists() and "waiting" not in sys.modules


class Restoring:
    """Runs when its attributes are set."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __setstate__(self, attributes: dict[str, Path]) -> None:
        attributes["path"].touch()


def test_attributes_of_an_object_are_not_set(tmp_path: Path) -> None:
    path, flag = tmp_path / "x.ckpt", tmp_path / "it-ran"
    torch.save({"state_dict": state(), "config": Restoring(flag)}, path)
    torch.load(path, weights_only=False)
    assert flag.exists()
    flag.unlink()
    assert_equal(foreign.weights_of(path), state())
    assert not flag.exists()


@each_format
def test_a_tensor_stays_within_its_storage(tmp_path: Path, options: dict[str, Any]) -> None:
    storage = torch.zeros(2)._typed_storage()
    beyond = Calling(torch._utils._rebuild_tensor_v2, storage, 0, (1000,), (1,), False, OrderedDict())
    torch.save({"state_dict": {"a": beyond}, "config": argparse.Namespace()}, tmp_path / "x.ckpt", **options)
    with pytest.raises(CheckpointError, match=r"cannot be read: RuntimeError: .*storage"):
        foreign.weights_of(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n<!DOCTYPE html><html>Google Drive can't scan this file", "is a web page.*in a browser"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a pointer of Git LFS: run git lfs",
        ),
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_what_a_download_left_instead_is_named(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} {reason}"):
        foreign.weights_of(tmp_path / name)


def test_a_file_of_weights_that_begins_as_a_page_may_is_read(tmp_path: Path) -> None:
    """Safetensors begin with the length of their header: of 0x3c20 bytes, a blank and a `<`."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x3C20)
    content = len(header).to_bytes(8, "little") + header + np.float32(7).tobytes()
    assert content.lstrip().startswith(b"<")
    (tmp_path / "x.safetensors").write_bytes(content)
    assert foreign.weights_of(tmp_path / "x.safetensors")["a"].tolist() == [7]


def test_torchscript_is_code_and_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps(touching(tmp_path / "it-ran")))
    with pytest.raises(CheckpointError, match="TorchScript"):
        foreign.weights_of(tmp_path / "x.pt")
    assert not (tmp_path / "it-ran").exists()


def test_archives_of_the_first_torch_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(touching(tmp_path / "it-ran"))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(CheckpointError, match=r"x\.tar cannot be read: .*tar"):
        foreign.weights_of(tmp_path / "x.tar")
    assert not (tmp_path / "it-ran").exists()


# --- single instructions -----------------------------------------------------------------------------


class WithReferences(pickle.Pickler):
    def persistent_id(self, item: object) -> object:
        return item if isinstance(item, tuple) and item[:1] == ("module",) else None


def referring() -> bytes:
    buffer = io.BytesIO()
    WithReferences(buffer, protocol=2).dump([("module", "a class", "its file", "its source")])
    return buffer.getvalue()


INSTRUCTIONS = {
    "instance by name": (b"\x80\x02(U\x02lsios\nsystem\n.", "instruction INST"),
    "instance of a class": (b"\x80\x02(cos\nsystem\nU\x02lso.", "instruction OBJ"),
    "registered extension": (b"\x80\x02\x82\x01.", "instruction EXT1"),
    "reference to a module": (referring(), "no tensor's storage"),
    "call of a result": (b"\x80\x02)U\x01a\x85R.", "it calls tuple"),
    "items of a number": (b"\x80\x02K\x01K\x02a.", "adds items to a int"),
    "no end": (b"\x80\x02K\x01", "pickle exhausted before seeing STOP"),
}


@pytest.mark.parametrize(("content", "reason"), INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_instructions_beyond_weights_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError), match=reason):
        unpickle.load(io.BytesIO(content))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_are_read_as_pickle_reads_them(protocol: int) -> None:
    data = {
        "numbers": [0, 255, 65_535, -1, 2**31, -(2**70), 0.1, float("inf")],
        "texts": ["", "é" * 300, "x" * 70_000],
        "nested": {"a": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "b": [[], {}, {"c": None}]},
        "truth": [True, False, None],
        "set": {1, 2},
    }
    data["again"] = data["nested"]
    content = pickle.dumps(data, protocol)
    found = unpickle.load(io.BytesIO(content))
    assert found == pickle.loads(content)
    assert found["again"] is found["nested"]


def test_reading_ends_where_the_pickle_ends() -> None:
    """Legacy files hold five pickles in a row, then the numbers."""
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps("two") + b"numbers")
    assert (unpickle.load(file), unpickle.load(file), file.read()) == ([1], "two", b"numbers")
