"""Decoding into the cache's squares, against OpenCV's way in the field's code: all pixels, then INTER_AREA.

One core each. Both must read the code of a JPEG, which libjpeg-turbo does for both; what is saved is the
rest, the cosine transform and the resizing. So the ratio falls with the bytes per pixel. What is left to
gain stands beside it: our time over that of the smallest picture the library can make.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pytest_benchmark.fixture import BenchmarkFixture

from harness.data.cache import SHRUNK_TO, stored
from harness.data.decode import decode
from harness.phantom import Cohort
from harness.phantom.render import render
from tests.harness.data.files import encoded, jpeg_dicom

SIDE = 256
ROUNDS = 7


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """[3050, 2500] uint8: a phantom of 400 x 488 enlarged, with a detector's noise."""
    cohort = Cohort("benchmark", 1, 0, (488, 400))
    person = next(iter(cohort.people()))
    study = person.studies[0]
    small = render(person, study, study.pictures[0], height=488, width=400, dials=cohort.dials).pixels
    large = np.asarray(Image.fromarray(small).resize((2500, 3050), Image.Resampling.BICUBIC), float)
    return np.clip(large + np.random.default_rng(0).normal(0, 1.5, large.shape), 0, 255).astype(np.uint8)


def seconds(function: Callable[[], object]) -> float:
    """The quickest of some runs, in processor time: other programs' turns do not count."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def ours(path: Path) -> np.ndarray:
    return stored(decode(path, SHRUNK_TO * SIDE), SIDE, "stretch")


def test_jpegs_of_2500_pixels(benchmark: BenchmarkFixture, tmp_path: Path, picture: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2", reason="the referee is missing: install the extra `dev`")
    cv2.setNumThreads(1)
    for quality in (60, 90):
        path = tmp_path / f"{quality}.jpg"
        path.write_bytes(encoded(picture, "JPEG", quality=quality))

        def theirs(path: Path = path) -> np.ndarray:
            whole = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            return cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

        def least(path: Path = path) -> None:
            image = Image.open(io.BytesIO(path.read_bytes()))
            image.draft(None, (1, 1))
            image.load()

        mean = np.abs(ours(path).astype(int) - stored(decode(path), SIDE, "stretch")).mean()
        assert mean < 1
        time_of_ours = seconds(lambda path=path: ours(path))
        benchmark.extra_info[f"quality {quality}"] = {
            "MB": round(path.stat().st_size / 1e6, 2),
            "times faster than OpenCV": round(seconds(theirs) / time_of_ours, 2),
            "of which could be gained at most": round(time_of_ours / seconds(least), 2),
            "mean difference in grey levels": round(float(mean), 2),
        }
        assert seconds(theirs) / time_of_ours > 1.8
    benchmark(ours, tmp_path / "90.jpg")


def test_dicoms_of_1024_pixels(benchmark: BenchmarkFixture, tmp_path: Path, picture: np.ndarray) -> None:
    """As RSNA's and SIIM's: a JPEG in a DICOM, which others have pydicom decode."""
    cv2 = pytest.importorskip("cv2", reason="the referee is missing: install the extra `dev`")
    cv2.setNumThreads(1)
    square = np.asarray(Image.fromarray(picture).resize((1024, 1024)))
    path = jpeg_dicom(tmp_path / "x.dcm", encoded(square, "JPEG", quality=90), square)

    def theirs() -> np.ndarray:
        stored_values = dcmread(path).pixel_array
        grey = (stored_values * (255 / stored_values.max())).astype(np.uint8)
        return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    benchmark(ours, path)
    ratio = seconds(theirs) / seconds(lambda: ours(path))
    benchmark.extra_info["times faster than pydicom and OpenCV"] = round(ratio, 2)
    assert ratio > 2
