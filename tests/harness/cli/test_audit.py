"""`audit` on phantoms: what a published split leaks, what the clean one does not, and pictures taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import registry
from harness.data import locate, published
from harness.data.decode import decode
from harness.phantom import Cohort
from tests.harness.command import harness

LEAKS = {"chexpert": "images", "rsna": "persons", "siim": "images", "covidx": "persons"}
"""Dataset -> what the published parts share, at least."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in (*LEAKS, "chestxray14"):
        persons = 100 if name == "chexpert" else 60
        locate.write(registry.load("tasks", name), root / name, Cohort(name, persons, 1, (32, 40)), workers=1)
    return root


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "1")


def audited(*arguments: object) -> Any:
    done = harness("audit", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what"), LEAKS.items(), ids=LEAKS)
def test_published_parts_leak_and_clean_ones_do_not(data: Path, name: str, what: str) -> None:
    found = audited("--task", name, "--data-root", data)["protocols"]
    assert found["clean"]["rules"] == {} and found["published"]["rules"]
    for pair in found["clean"]["shared"]:
        assert pair["images"] == pair["persons"] == pair["images_of_persons"] == 0
    assert sum(pair[what] for pair in found["published"]["shared"]) > 0
    assert all(pair["persons"] >= bool(pair["images"]) for pair in found["published"]["shared"])


@pytest.mark.slow
def test_official_lists_leak_nothing(data: Path) -> None:
    found = audited("--task", "chestxray14", "--data-root", data)
    assert found["task"] == "chestxray14:linear" and found["data"] == "phantom"
    for facts in found["protocols"].values():
        assert not any(pair["images"] or pair["persons"] for pair in facts["shared"])
    rules = ("parts-of-the-clean-protocol", *published.HEADS["linear"])
    assert found["protocols"]["published"]["rules"] == {rule: published.RULES[rule] for rule in rules}


def test_the_page_for_people_explains_the_rules(data: Path) -> None:
    done = harness("audit", "--task", "chexpert", "--data-root", data)
    assert done.code == 0, done.err
    assert "chexpert:linear, published (phantom): train" in done.out
    assert "valid-drawn-by-position-removed-by-label: Validation rows are drawn by position" in done.out
    assert "numbers-scaled-to-the-table" in done.out


def test_where_nothing_is_fitted_there_is_no_all_clear(tmp_path: Path) -> None:
    cohort = Cohort("mimic_cxr", 20, 0, (32, 26))
    locate.write(registry.load("tasks", "mimic_cxr"), tmp_path / "mimic_cxr", cohort, workers=1)
    done = harness("audit", "--task", "mimic_cxr:retrieval", "--data-root", tmp_path)
    assert done.code == 0, done.err
    assert "Nothing is fitted on this dataset" in done.out and "persons in both" not in done.out


def test_pictures_that_another_dataset_took_over_are_found(data: Path, tmp_path: Path) -> None:
    """Three of RSNA's in COVIDx: one as it is, one smaller, one under another name and claiming nothing."""
    for name in ("rsna", "covidx"):
        (tmp_path / name).symlink_to(data / name)
    theirs = sorted((data / "rsna/stage_2_train_images").glob("*.dcm"))[:3]
    covidx = tmp_path / "covidx"
    covidx.unlink()
    (covidx / "train").mkdir(parents=True)
    (covidx / "test").mkdir()
    names = [f"{theirs[0].stem}.png", f"{theirs[1].stem}.png", "unheard-of.png"]
    for name, path in zip(names, theirs, strict=True):
        pixels = decode(path).pixels
        grey = (pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        image = Image.fromarray(grey)
        if path == theirs[1]:
            image = image.resize((36, 29), Image.Resampling.BICUBIC)
        image.save(covidx / "train" / name)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(covidx / "test" / "noise.png")
    rows = [f"{path.stem} {name} normal rsna" for name, path in zip(names[:2], theirs, strict=False)]
    (covidx / "train.txt").write_text("\n".join([*rows, "77 unheard-of.png pneumonia cohen"]) + "\n")
    (covidx / "test.txt").write_text("78 noise.png COVID-19 ricord\n")
    _, across, _ = audited("--across", "rsna", "covidx", "--data-root", tmp_path)
    assert (across["first"], across["second"], across["of"][1]) == ("rsna", "covidx", 4)
    assert (across["alike"], across["named"], across["named_found"]) == (3, {"train": 2}, 2)
    assert across["identical"] >= 1 and (across["radius"], across["correlation"]) == (4, 0.99)
    assert {pair[1] for pair in across["examples"]} == {f"train/{name}" for name in names}
    done = harness("audit", "--across", "rsna", "covidx", "--data-root", tmp_path)
    assert "rsna and covidx" in done.out and "train: 2" in done.out and "of these found by id" in done.out
    assert "differ in at most 4 of 64 bits, of pictures that correlate by 0.99 or more at 32 x 32" in done.out


@pytest.mark.parametrize(
    "arguments",
    [[], ["--task", "rsna", "--across", "rsna"], ["--across"], ["rsna"], ["--task", "rsna", "siim"]],
)
def test_half_a_question_is_refused(arguments: list[str]) -> None:
    done = harness("audit", *arguments)
    assert done.code == 2 and "either --task TASK, or --across" in done.err
