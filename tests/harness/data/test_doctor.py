"""The doctor on phantoms of every dataset, sound and with one fault of each kind planted into their files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from harness import registry
from harness.contracts import Variant
from harness.data import doctor, locate
from harness.data.decode import decode
from harness.data.doctor import Finding, Report
from harness.data.locate import Located
from harness.data.looks import INVERTED_BELOW, likeness, look
from harness.phantom import Cohort

NAMES = sorted(registry.entries("tasks"))
PERSONS, SIZE = 30, (96, 112)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("phantoms")

    def root(name: str) -> Path:
        if not (folder / name).exists():
            cohort = Cohort(name, PERSONS, seed=3, size=SIZE)
            locate.write(registry.load("tasks", name), folder / name, cohort, workers=1)
        return folder / name

    return root


@pytest.fixture
def copy(phantoms: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(phantoms(name), tmp_path / name))


def examined(name: str, root: Path, **changes: object) -> Report:
    card, reader = replace(registry.dataset_card(name), **changes), registry.load("tasks", name)
    kind = "real" if changes else "phantom"
    return doctor.examine(name, card, reader, Located(root, kind), everything=True, workers=1)


def found(report: Report, *, matters: bool = True) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings if finding.matters == matters}


def table(name: str, root: Path) -> pd.DataFrame:
    frame: pd.DataFrame = registry.load("tasks", name).read(root)
    return frame


def grey(row: dict[str, str]) -> np.ndarray:
    pixels = decode(Path(row["path"])).pixels
    return (pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def overwrite(row: dict[str, str], pixels: np.ndarray) -> None:
    """Other pixels in the same file, which stays a DICOM with its header if it was one."""
    path = Path(row["path"])
    if path.suffix == ".dcm":
        header = dcmread(path)
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.set_pixel_data(pixels, "MONOCHROME2", 8, generate_instance_uid=False)
        header.save_as(path)
    else:
        Image.fromarray(pixels).save(path, "PNG")


# --- every dataset -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_in_a_sound_phantom(name: str, phantoms: Callable[[str], Path]) -> None:
    report = examined(name, phantoms(name))
    assert found(report) == {}
    assert report.sound and report.images == report.looked_at > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_planted_fault_is_found_and_nothing_else(name: str, copy: Callable[[str], Path]) -> None:
    root = copy(name)
    frame = table(name, root)
    frame = frame[frame["frontal"]].drop_duplicates("person_id")
    cut, blank, negative, original, double, shallow = frame.iloc[:6].to_dict("records")
    file = Path(cut["path"])
    file.write_bytes(file.read_bytes()[:-200])
    overwrite(blank, np.full_like(grey(blank), 90))
    overwrite(negative, 255 - grey(negative))
    same = grey(original)
    overwrite(original, same)
    overwrite(double, same)
    overwrite(shallow, grey(shallow) // 16)

    findings = found(examined(name, root))
    assert set(findings) == {"unreadable", "constant", "dark?", "inverted?", "duplicates"}
    assert findings["unreadable"].examples[0].startswith(cut["path"])
    assert findings["constant"].examples == (blank["image_id"],)
    assert findings["dark?"].examples == (shallow["image_id"],)
    assert findings["inverted?"].examples == (negative["image_id"],)
    assert "suspicion" in findings["inverted?"].says
    pair = sorted((original["image_id"], double["image_id"]))
    assert findings["duplicates"].examples == (" = ".join(pair),)
    counts = {key: finding.count for key, finding in findings.items()}
    assert counts == {"unreadable": 1, "constant": 1, "dark?": 1, "inverted?": 1, "duplicates": 2}
    assert all(finding.cure for finding in findings.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_picture_is_named(name: str, copy: Callable[[str], Path]) -> None:
    root = copy(name)
    path = next(path for path in map(Path, table(name, root)["path"]) if " " not in path.name)
    path.unlink()
    [finding] = found(examined(name, root)).values()
    assert path.name in f"{finding.says} {finding.examples}"


def test_a_download_with_holes_is_looked_through_all_the_same(copy: Callable[[str], Path]) -> None:
    root = copy("chexpert")
    paths = [Path(path) for path in table("chexpert", root)["path"]]
    for path in paths[:5]:
        path.unlink()
    paths[5].write_bytes(b"")
    report = examined("chexpert", root)
    findings = found(report)
    assert {name: finding.count for name, finding in findings.items()} == {"missing": 5, "unreadable": 1}
    assert findings["missing"].examples == tuple(map(str, paths[:3]))
    assert (report.images, report.looked_at) == (len(paths), len(paths) - 5)


def test_headers_that_cannot_be_read_are_named_together(copy: Callable[[str], Path]) -> None:
    root = copy("rsna")
    damaged = sorted((root / "stage_2_train_images").glob("*.dcm"))[:4]
    for path in damaged:
        path.write_bytes(b"")
    [finding] = found(examined("rsna", root)).values()
    assert all(path.name in finding.says for path in damaged[:3]) and finding.says.endswith(" and 1 more")


# --- tables ------------------------------------------------------------------------------------------


def test_headers_and_cells_that_the_format_does_not_allow(copy: Callable[[str], Path]) -> None:
    root = copy("chexpert")
    labels = root / "train.csv"
    good = labels.read_text()
    for bad, problem in (
        (good.replace("Edema", "Oedema", 1), "line 1.*'Edema'"),
        (good.replace(",1.0,", ",maybe,", 1), "'maybe' is not one of"),
    ):
        labels.write_text(bad)
        [finding] = found(examined("chexpert", root)).values()
        assert re.search(problem, finding.says) and str(labels) in finding.says


@pytest.mark.slow
def test_counts_and_prevalence_are_compared_with_the_card(phantoms: Callable[[str], Path]) -> None:
    root = phantoms("chexpert")
    frame = table("chexpert", root)
    parts = frame["split"].value_counts().to_dict()
    edema = int(frame.loc[frame["split"] == "train", "label:Edema"].eq(1).sum())
    right = Variant("right", len(frame), parts, {"train": {"Edema": edema}})
    assert examined("chexpert", root, variants=(right,)).findings == ()
    assert examined("chexpert", root, variants=(right,)).release == "right"

    edited = replace(right, positives={"train": {"Edema": edema + 3}})
    [finding] = found(examined("chexpert", root, variants=(edited,))).values()
    assert (finding.name, finding.count, finding.examples) == ("prevalence", 3, ("Edema",))

    studies = frame["study_id"].nunique()
    whole = replace(right, totals={"studies": studies})
    assert examined("chexpert", root, variants=(whole,)).findings == ()
    [finding] = found(
        examined("chexpert", root, variants=(replace(right, totals={"studies": studies + 2}),))
    ).values()
    assert (finding.name, finding.count) == ("studies", 2)

    larger = replace(right, images=len(frame) + 9, parts={**parts, "train": parts["train"] + 9})
    [finding] = found(examined("chexpert", root, variants=(larger,))).values()
    assert (finding.name, finding.count) == ("counts", 9)
    assert f"train {parts['train']:,} of {parts['train'] + 9:,}" in finding.says


@pytest.mark.parametrize("name", ["mimic_cxr", "openi"])
def test_empty_reports(name: str, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy(name)
    for text in [*root.rglob("*.txt"), *root.rglob("*.xml")][::4]:
        words = text.read_text()
        text.write_text(
            "" if text.suffix == ".txt" else re.sub(r"(<AbstractText[^>]*>)[^<]*<", r"\1<", words)
        )
    empty = (table(name, root)[["findings", "impression"]] == "").all(axis=1)
    for few, matters in ((empty.mean() - 0.001, True), (empty.mean() + 0.001, False)):
        monkeypatch.setattr(doctor, "FEW_REPORTS", few)
        finding = found(examined(name, root), matters=matters)["empty reports"]
        assert finding.count == empty.sum() > 3
        assert len(finding.examples) == 3


def test_a_corpus_without_one_of_the_sections_is_told(phantoms: Callable[[str], Path]) -> None:
    frame = table("openi", phantoms("openi")).drop(columns="impression")
    [finding] = doctor._reports(frame)
    assert finding.matters and finding.says == "the reader gives no column 'impression'"


def test_labels_that_the_policy_leaves_open_are_counted(phantoms: Callable[[str], Path]) -> None:
    task = registry.dataset_card("chexpert").tasks[0]
    strict = replace(task, uncertain={}, blank=None)
    report = examined("chexpert", phantoms("chexpert"), tasks=(strict,), variants=())
    counts = {finding.says.rpartition(" for ")[2]: finding.count for finding in report.findings}
    frame = table("chexpert", phantoms("chexpert"))
    for label in task.labels:
        cells = frame.loc[frame["frontal"], f"label:{label}"]
        assert counts[label] == (cells.isna() | cells.eq(-1)).sum()
    assert report.sound


# --- pictures ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_radiographs_are_upright_and_their_negatives_are_not(realdata: Path) -> None:
    paths = [
        *sorted(realdata.glob("rsna/stage_2_train_images/*.dcm"))[::6],
        *sorted(realdata.glob("chestxray14/images_*/images/*.png"))[::6],
        *sorted(realdata.glob("hannover/*.png")),
    ]
    for path in paths:
        small = look(path).small
        assert small is not None
        assert likeness(small) > -INVERTED_BELOW
        assert likeness(255 - small) < INVERTED_BELOW


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsna", "chestxray14"])
def test_of_real_pictures_only_their_number_is_wrong(realdata: Path, name: str) -> None:
    reader = registry.load("tasks", name)
    located = Located(realdata / name, "real")
    report = doctor.examine(name, reader.CARD, reader, located, everything=False, workers=1)
    assert list(found(report)) == ["counts"]
    assert report.looked_at == report.images > 100


def test_a_sample_is_the_same_every_time(
    phantoms: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SAMPLE", 7)
    seen: list[list[Path]] = []
    parallel_map = doctor.parallel_map

    def noting(function: object, paths: list[Path], **options: object) -> object:
        seen.append(paths)
        return parallel_map(function, paths, **options)

    monkeypatch.setattr(doctor, "parallel_map", noting)
    reader = registry.load("tasks", "chexpert")
    for _ in range(2):
        located = Located(phantoms("chexpert"), "phantom")
        report = doctor.examine("chexpert", reader.CARD, reader, located, everything=False, workers=1)
        assert report.looked_at == 7
    assert seen[0] == seen[1] and len(set(seen[0])) == 7
