"""Cached features are those of a direct forward pass, never those of another encoder or other pictures."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.contracts import ImageFeatures, Preprocessing
from harness.cost import Cost
from harness.data.cache import Images
from harness.errors import CorruptCache, DataError, HarnessError, UsageError
from harness.evaluate import bank
from harness.evaluate.bank import Bank, Source
from harness.evaluate.bench import Bench
from harness.settings import BankDtype
from tests.fakes import PROFILE, Tiny

CPU = torch.device("cpu")
PREPROCESSING = PROFILE.preprocessing  # 10 x 10 stored, the central 8 x 8 seen, mean 0.5, deviation 0.25


def images(count: int = 7, seed: int = 0) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 10, 10), dtype=np.uint8)
    pixels.flags.writeable = False  # as mapped from the disk
    return Images(pixels, np.full((count, 2), 10, np.uint32), f"pictures {seed}", {}, True)


def encoder() -> Tiny:
    """With running statistics of its own, which evaluation must use and keep."""
    torch.manual_seed(0)
    model = Tiny()
    for _ in range(3):
        model.encoder(torch.randn(16, 3, 8, 8) + 1)
    return model


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda found: found._replace(pooled=found.pyramid[2]), r"pooled \[7, 8, 4, 4\]"),
        (lambda found: found._replace(pooled=found.pooled[:3]), r"pooled \[3, 8\]"),
        (lambda found: found.pooled, "Tensor"),
    ],
    ids=["a map", "too few", "no ImageFeatures"],
)
def test_what_is_no_pooled_feature_is_named_at_the_first_batch(
    monkeypatch: pytest.MonkeyPatch, given: Callable[[ImageFeatures], object], said: str
) -> None:
    model = encoder()
    encode = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda x: given(encode(x)))
    refusal = rf"Tiny\.encode_image gives {said} for 7 pictures\. It must give ImageFeatures .* \[7, D\]"
    with pytest.raises(UsageError, match=refusal):
        bank.encode(model, images().pixels, PREPROCESSING, CPU)


class Encoders:
    """Builds encoders and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> nn.Module:
        self.built += 1
        return encoder()


def source(build: Encoders | None = None, **changes: object) -> Source:
    return Source("tiny", 1, "c" * 64, "w" * 64, PREPROCESSING, build or Encoders())._replace(**changes)


def opened(
    folder: Path, wanted: Source | None = None, pictures: Images | None = None, dtype: BankDtype = "float32"
) -> Bank:
    return bank.open_bank(wanted or source(), pictures or images(), folder=folder, device=CPU, dtype=dtype)


def direct(pictures: Images) -> Tensor:
    """One forward pass over the central crop, written out."""
    x = (torch.tensor(pictures.pixels)[:, 1:9, 1:9] / 255 - 0.5) / 0.25
    with torch.inference_mode():
        return encoder().eval().encode_image(x[:, None].expand(-1, 3, -1, -1)).pooled


# --- the features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [3, 128])
def test_features_are_those_of_a_direct_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(bank, "BATCH", batch)
    found = opened(tmp_path)
    assert found.features.dtype == np.float32
    torch.testing.assert_close(torch.tensor(found.features), direct(images()))


def test_half_precision_is_off_by_half_precision_only(tmp_path: Path) -> None:
    found = opened(tmp_path, dtype="float16")
    assert found.features.dtype == np.float16
    np.testing.assert_array_equal(found.features, direct(images()).numpy().astype(np.float16))


def test_an_encoder_handed_over_in_training_mode_is_frozen(tmp_path: Path) -> None:
    model = encoder().train()
    opened(tmp_path, source(build=lambda: model))  # type: ignore[arg-type]
    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())
    for name, value in encoder().state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


class Restless(Tiny):
    """Goes on learning the statistics of what it sees."""

    def encode_image(self, x: Tensor) -> ImageFeatures:
        self.encoder.train()
        return super().encode_image(x)


class Counting(Tiny):
    """Keeps a count in a buffer: no number of a feature is wrong yet."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))

    def encode_image(self, x: Tensor) -> ImageFeatures:
        self.calls += 1
        return super().encode_image(x)


@pytest.mark.parametrize("kind", [Restless, Counting])
def test_an_encoder_that_changes_while_it_encodes_is_refused(tmp_path: Path, kind: type[Tiny]) -> None:
    with pytest.raises(HarnessError, match=rf"{kind.__name__} changed its state while it encoded"):
        opened(tmp_path, source(build=kind))  # type: ignore[arg-type]
    assert list(tmp_path.glob("*.npy")) == []


# --- the cache ----------------------------------------------------------------------------------------


def test_the_second_time_no_encoder_is_built(tmp_path: Path) -> None:
    build = Encoders()
    first, second = opened(tmp_path, source(build)), opened(tmp_path, source(build))
    assert build.built == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.images_per_second and first.images_per_second > 0
    assert second.images_per_second is None
    assert second.features.tobytes() == first.features.tobytes()


OTHER_INPUT: dict[str, Preprocessing] = {
    "size": replace(PREPROCESSING, size=6),
    "stored": replace(PREPROCESSING, stored=12),
    "geometry": replace(PREPROCESSING, geometry="pad"),
    "mean": replace(PREPROCESSING, mean=(0.5, 0.5, 0.4)),
    "std": replace(PREPROCESSING, std=(0.25, 0.25, 0.2)),
    "upsample": replace(PREPROCESSING, upsample=16),
}


def test_whatever_shapes_the_features_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path)
    changes = [{"method": "other"}, {"method_version": 2}, {"code": "d" * 64}, {"weights": "v" * 64}]
    changes += [{"preprocessing": item} for item in OTHER_INPUT.values()]
    for change in changes:
        assert not opened(tmp_path, source(**change)).cached, change
    assert not opened(tmp_path, pictures=images(seed=1)).cached
    assert not opened(tmp_path, dtype="float16").cached
    monkeypatch.setattr(bank.transforms, "VERSION", bank.transforms.VERSION + 1)
    assert not opened(tmp_path).cached
    assert len(list(tmp_path.glob("*.npy"))) == 4 + len(changes)


@pytest.mark.parametrize("name", ["arithmetic", "version"])
def test_other_arithmetic_and_libraries_make_other_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened(tmp_path)
    assert opened(tmp_path).cached
    monkeypatch.setattr(bank, name, lambda _: "another")
    assert not opened(tmp_path).cached


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 7e4), ("float32", np.inf)])
def test_a_feature_that_is_no_number_is_refused(tmp_path: Path, dtype: BankDtype, largest: float) -> None:
    class Loud(Tiny):
        def encode_image(self, x: Tensor) -> ImageFeatures:
            pooled = torch.ones(len(x), 3)
            pooled[1] = largest
            return ImageFeatures(pooled, None, None, {})

    with pytest.raises(DataError, match=rf"not finite in {dtype}, of 1 of \d+ pictures"):
        opened(tmp_path, source(build=Loud), dtype=dtype)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.npy"))


def test_groups_that_start_together_encode_once(tmp_path: Path) -> None:
    """Clean and published cells of a task are two groups with one bank."""

    class Slow(Encoders):
        def __call__(self) -> nn.Module:
            time.sleep(0.2)
            return super().__call__()

    build = Slow()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: opened(tmp_path, source(build)), range(2)))
    assert build.built == 1 and sorted(each.cached for each in found) == [False, True]
    np.testing.assert_array_equal(found[0].features, found[1].features)


def test_features_that_cannot_be_kept_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bank.arrays, "save", full)
    monkeypatch.setattr(bank, "locked", full)
    found = opened(tmp_path)
    np.testing.assert_allclose(found.features, direct(images()), atol=1e-6)
    assert not found.cached and "features are not kept" in caplog.text


def test_a_disk_without_locks_keeps_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOSYS, "not implemented")))
    assert [opened(tmp_path).cached for _ in range(2)] == [False, True]


def test_features_that_cannot_be_had_are_tried_once(tmp_path: Path) -> None:
    """By all cells of a group, each of which has a bench with what the others opened."""

    class Broken(Encoders):
        def __call__(self) -> nn.Module:
            self.built += 1
            raise HarnessError("no such weights")

    build = Broken()
    bench = Bench(source(build), images(), tmp_path, CPU, "float32", Cost())
    for _ in range(3):
        with pytest.raises(HarnessError, match="no such weights"):
            replace(bench, cost=Cost()).bank()
    assert build.built == 1


def test_a_damaged_bank_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    [path] = tmp_path.glob("*.npy")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptCache, match=rf"{path.name} is not the file that was written\. Delete it"):
        opened(tmp_path)
    path.unlink()
    assert not opened(tmp_path).cached


def test_a_kill_while_encoding_leaves_no_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(bank.arrays, "seal", stop)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    assert not opened(tmp_path).cached
