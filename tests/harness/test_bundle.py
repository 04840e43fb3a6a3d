"""What leaves a machine and what is let in: on records that this repository holds, and on bundles made to
deceive."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import bundle, records
from harness.errors import BadRecord, UnknownName, UsageError
from tests import fakes

ROOT = Path(__file__).resolve().parents[2] / "results"
CELLS = sorted((ROOT / "phantom" / "chexpert-linear").glob("*-s0/clean-1pct-s0.json"))[:2]

Files = dict[str, bytes]


@pytest.fixture
def files() -> Files:
    """Two cells, by their places in a results folder."""
    found = [file for path in CELLS for file in (path, path.with_suffix(".npz"))]
    return {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in found}


@pytest.fixture
def record() -> str:
    return CELLS[0].relative_to(ROOT).as_posix()


@pytest.fixture
def results(tmp_path: Path, files: Files) -> Path:
    return lay(tmp_path / "results", files)


def lay(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def lying_in(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def pack(place: Path, files: Files, manifest: Files | None = None) -> Path:
    """A bundle without our own code; its manifest is that of other files where those are given."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in (manifest or files).items()}
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("bundle.json", json.dumps({"format": 1, "harness": "0.1.0", "files": hashes}))
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def edited(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    raw = json.loads(content)
    change(raw)
    return json.dumps(raw).encode()


def arrays(content: bytes, **changes: np.ndarray) -> bytes:
    with np.load(io.BytesIO(content)) as found:
        written = io.BytesIO()
        np.savez(written, **{**found, **changes})
    return written.getvalue()


# --- there and back -----------------------------------------------------------------------------------


def test_cells_come_back_byte_for_byte(tmp_path: Path, results: Path, files: Files) -> None:
    made = bundle.write(results, tmp_path / "out.zip")
    assert made.files == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == sorted(["bundle.json", *files])
        assert json.loads(archive.read("bundle.json"))["files"] == made.files
    done = bundle.read(tmp_path / "out.zip", tmp_path / "other")
    assert (sorted(done.new), done.known) == (
        sorted(tmp_path / "other" / name for name in files if name.endswith(".json")),
        0,
    )
    assert lying_in(tmp_path / "other") == files
    assert bundle.read(tmp_path / "out.zip", tmp_path / "other") == ([], 2)


def test_a_cell_that_is_replaced_while_it_is_exported_is_no_unsound_bundle(
    tmp_path: Path, results: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = bundle.grouping.checked

    def replaced(*given: Any) -> Any:
        (results / min(files)).write_bytes(b"another")
        return checked(*given)

    monkeypatch.setattr(bundle.grouping, "checked", replaced)
    with pytest.raises(BadRecord, match=f"{min(files)} was replaced meanwhile. Export again"):
        bundle.write(results, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_the_same_cells_are_the_same_bundle(tmp_path: Path, results: Path) -> None:
    for name in ("first.zip", "second.zip"):
        bundle.write(results, tmp_path / name)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_a_task_and_a_method_that_are_there_but_not_together_are_no_bundle(tmp_path: Path) -> None:
    results = tmp_path / "results"
    fakes.write(results, method="one", family="one-x", task="rsna:linear")
    fakes.write(results, method="other", family="other-x", task="siim:linear")
    with pytest.raises(UsageError, match="no record of these tasks and methods"):
        bundle.write(results, tmp_path / "none.zip", ["rsna:*"], ["other"])
    with pytest.raises(UsageError, match="no record of these tasks and methods"):
        bundle.write(tmp_path / "empty", tmp_path / "none.zip", ["rsna:*"])


def test_patterns_choose_cells(tmp_path: Path, results: Path) -> None:
    method = records.read(CELLS[1]).cell.method
    made = bundle.write(results, tmp_path / "out.zip", ["chexpert:*"], [method])
    assert {Path(name).parent.name for name in made.files} == {CELLS[1].parent.name}
    with pytest.raises(
        UnknownName, match=r"unknown task in .* 'chexprt:\*'\. Did you mean 'chexpert:linear'"
    ):
        bundle.write(results, tmp_path / "none.zip", ["chexprt:*"])
    with pytest.raises(UnknownName, match=r"unknown method in .* 'nobody'"):
        bundle.write(results, tmp_path / "none.zip", [], ["nobody"])
    assert not (tmp_path / "none.zip").exists()


@pytest.mark.parametrize(
    ("name", "fits"), [("my weights, 2-s0", False), ("poids-été-s0", False), ("my weights 2-s0", True)]
)
def test_what_leaves_could_be_taken_in(tmp_path: Path, files: Files, name: str, fits: bool) -> None:
    old = CELLS[0].parent.name
    named = {
        place.replace(old, name): edited(data, lambda raw: raw["cell"].update(checkpoint=name))
        if place.endswith(".json")
        else data
        for place, data in files.items()
        if old in place
    }
    results = lay(tmp_path / "results", named)
    if fits:
        bundle.write(results, tmp_path / "out.zip")
        assert len(bundle.read(tmp_path / "out.zip", tmp_path / "other").new) == 1
        return
    with pytest.raises(BadRecord, match=rf"{name}/clean-1pct-s0.json: no bundle takes a name.*with --as"):
        bundle.write(results, tmp_path / "out.zip")


# --- what must not leave ------------------------------------------------------------------------------


def _argument(value: str) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw["code"]["arguments"].update(data_root=value)


LEAKS = {
    "folder": (_argument("/data/xrays"), "code.arguments.data_root holds '/data/xrays'"),
    "several": (_argument("imitate,/srv/mine.py"), "code.arguments.data_root"),
    "home": (_argument("~/xrays"), "code.arguments.data_root"),
    "above": (_argument("../xrays"), "code.arguments.data_root"),
    "user": (_argument("home/jane/xrays"), "code.arguments.data_root"),
    "windows": (_argument("C:\\xrays"), "code.arguments.data_root"),
    "share": (_argument("\\\\server\\xrays"), "code.arguments.data_root"),
    "machine": (_argument("ray://10.0.0.7:10001"), "code.arguments.data_root"),
    "in a sentence": (lambda raw: raw["head"].update(name="a probe (/srv/probe)"), "head.name"),
    "in a list": (lambda raw: raw["task"].update(rules=["as in /srv/code"]), "task.rules"),
    "as a key": (lambda raw: raw["head"]["settings"].update({"/srv/prompts": 1}), "head.settings"),
}


@pytest.mark.parametrize(("change", "place"), LEAKS.values(), ids=LEAKS)
def test_a_place_on_a_machine_neither_leaves_nor_enters(
    tmp_path: Path, files: Files, record: str, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    files[record] = edited(files[record], change)
    with pytest.raises(BadRecord) as refused:
        bundle.write(lay(tmp_path / "results", files), tmp_path / "out.zip")
    assert place in str(refused.value)
    assert "run the cell again" in str(refused.value)
    assert not (tmp_path / "out.zip").exists()
    with pytest.raises(BadRecord, match="nothing was imported"):
        bundle.read(pack(tmp_path / "in.zip", files), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "word", ["ViT-B/16", "threshold:Edema", "chexpert:linear", "0.01,0.1,1", "rsna:*", "and/or"]
)
def test_a_word_is_no_place(word: str) -> None:
    assert not records.ADDRESS.search(word)


# --- what must not enter ------------------------------------------------------------------------------


def refused(bundle_file: Path, results: Path) -> str:
    """The reason, once it is sure that nothing was written."""
    before = lying_in(results.parent)
    with pytest.raises(BadRecord) as error:
        bundle.read(bundle_file, results)
    assert lying_in(results.parent) == before
    return str(error.value)


ABSURD = [
    "../evil",
    "/tmp/evil",
    "phantom/../../evil/x/y",
    "phantom/task/./y",
    "phantom\\task\\x\\y",
    "reported/task/x/y",
    "phantom/task/y",
    "phantom/task/x/y/z",
    "phantom/task/x/.y",
    "phantom/task/x/" + "y" * 300,
]


@pytest.mark.parametrize("name", ABSURD)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, files: Files, record: str, name: str) -> None:
    for kind in (".json", ".npz"):
        files[name + kind] = files[record.removesuffix(".json") + kind]
    assert "is not the place of a record" in refused(pack(tmp_path / "in.zip", files), tmp_path / "other")


def test_a_picture_is_refused_whether_it_is_listed_or_not(tmp_path: Path, files: Files) -> None:
    more = {**files, "phantom/chexpert-linear/x/picture.png": b"\x89PNG"}
    assert "without a record" in refused(pack(tmp_path / "in.zip", more), tmp_path / "other")
    assert "lists other files" in refused(pack(tmp_path / "in.zip", more, files), tmp_path / "other")
    assert "lists other files" in refused(pack(tmp_path / "in.zip", files, more), tmp_path / "other")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, files: Files, record: str) -> None:
    place = pack(tmp_path / "in.zip", files)
    with zipfile.ZipFile(place, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(record, b"{}")
    assert "lists other files" in refused(place, tmp_path / "other")


def test_content_that_the_manifest_does_not_know_is_refused(
    tmp_path: Path, files: Files, record: str
) -> None:
    changed = {**files, record: files[record].replace(b'"seed": 0', b'"seed": 00')}
    assert f"{record} is not the file" in refused(pack(tmp_path / "in.zip", changed, files), tmp_path / "x")


def test_half_a_cell_is_refused(tmp_path: Path, files: Files, record: str) -> None:
    del files[record.replace(".json", ".npz")]
    assert "without predictions" in refused(pack(tmp_path / "in.zip", files), tmp_path / "other")


def test_what_is_no_bundle_is_refused(tmp_path: Path, files: Files) -> None:
    whole = pack(tmp_path / "whole.zip", files).read_bytes()
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    middle = whole.index(b"decisions.npy") + 500  # in predictions, so that the list of files is whole
    (tmp_path / "bits.zip").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    for name in ("plain", "text", "cut", "bits"):
        assert "not a bundle of" in refused(tmp_path / f"{name}.zip", tmp_path / "other"), name


def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, files: Files, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LARGEST", 1_000_000)
    bomb = arrays(files[record.replace(".json", ".npz")])
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bomb)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("zeros.npy", bytes(2_000_000))
    inside = {**files, record.replace(".json", ".npz"): packed.getvalue()}
    assert "unpacks to more" in refused(pack(tmp_path / "in.zip", inside), tmp_path / "other")
    outside = {**files, record: bytes(2_000_000)}
    assert "or larger than" in refused(pack(tmp_path / "in.zip", outside), tmp_path / "other")


def _digit(raw: dict[str, Any]) -> None:
    raw["metrics"]["macro_auroc"]["value"] += 1e-6


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "digit": (_digit, "metrics.macro_auroc is"),
    "metric left out": (lambda raw: raw["metrics"].pop("accuracy"), "metrics.accuracy is None in the record"),
    "metric added": (
        lambda raw: raw["metrics"].update(f1=raw["metrics"]["accuracy"]),
        "metrics.f1 is 0.",
    ),
    "images": (lambda raw: raw["parts"]["test"].update(images=1), "has 1 images of"),
    "persons": (lambda raw: raw["parts"]["test"].update(persons=1), "images of 1 persons"),
    "labels": (lambda raw: raw["task"].update(labels=["Edema"]), "cannot be scored"),
    "kind": (lambda raw: raw["task"].update(kind="segmentation"), "cannot be scored: 'truth_area'"),
    "schema": (lambda raw: raw["cell"].update(seed="one"), "cell.seed"),
    "later schema": (lambda raw: raw["cell"].update(colour="red"), "nothing was imported. phantom/"),
    "cell": (lambda raw: raw["cell"].update(seed=1), "another cell"),
}


@pytest.mark.parametrize(("change", "reason"), TAMPERED.values(), ids=TAMPERED)
def test_a_record_that_is_not_that_of_its_predictions_is_refused(
    tmp_path: Path, files: Files, record: str, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    files[record] = edited(files[record], change)
    assert reason in refused(pack(tmp_path / "in.zip", files), tmp_path / "other")


def test_predictions_that_are_not_those_of_the_record_are_refused(
    tmp_path: Path, files: Files, record: str
) -> None:
    name, told = record.replace(".json", ".npz"), files[record]
    found = records.predictions(CELLS[0])
    files[name] = arrays(files[name])
    assert "is not the one that" in refused(pack(tmp_path / "in.zip", files), tmp_path / "other")
    for changes, reason in (
        ({"scores": -found.arrays["scores"]}, "metrics.auroc"),
        ({"notes": np.full(len(found.images), "patient 7")}, "notes is no array of numbers"),
        ({"notes": np.array(3)}, "notes is no array of numbers"),
        ({"/home/jane": found.images}, "its predictions holds '/home/jane'"),
        ({"persons": found.persons.astype(np.int64)}, "hashed ids"),
        ({"images": found.images[::-1]}, "hashed ids"),
    ):
        files[name] = arrays(files[name], **changes)
        digest = hashlib.sha256(files[name]).hexdigest()
        files[record] = edited(told, lambda raw, digest=digest: raw.update(predictions=digest))  # type: ignore[misc]
        assert reason in refused(pack(tmp_path / "in.zip", files), tmp_path / "other")
        files[name] = CELLS[0].with_suffix(".npz").read_bytes()


def test_a_cell_that_disagrees_stops_the_whole_import(tmp_path: Path, files: Files, record: str) -> None:
    mine = {record: edited(files[record], _digit), record.replace(".json", ".npz"): b""}
    told = refused(pack(tmp_path / "in.zip", files), lay(tmp_path / "results", mine))
    value = json.loads(files[record])["metrics"]["macro_auroc"]["value"]
    assert (
        f"results/{record} is there already and is another: macro_auroc is {value + 1e-6} here and {value}"
        in told
    )
    assert "They differ in metrics.macro_auroc." in told


def test_predictions_alone_may_disagree(tmp_path: Path, files: Files, record: str) -> None:
    name = record.replace(".json", ".npz")
    mine = {record: files[record], name: arrays(files[name])}  # the same numbers, not compressed
    told = refused(pack(tmp_path / "in.zip", files), lay(tmp_path / "results", mine))
    assert "They differ in their circumstances or predictions alone." in told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw["pretraining"].update(weights="0" * 64), "two trainings under one name"),
        (lambda raw: raw["task"].update(version=99), "two versions of chexpert:linear"),
        (lambda raw: raw["preprocessing"].update(size=9), "two ways to prepare pictures under one name"),
        (lambda raw: raw["task"].update(rules=["last-batch-dropped"]), "two sets of rules"),
        (lambda raw: raw["head"].update(version=99), "two versions of the head"),
        (lambda raw: raw["data"].update(reading=[3, 1, 1]), "two ways to read pictures"),
    ],
    ids=["weights", "version", "pre-processing", "rules", "head", "reading"],
)
def test_cells_that_the_leaderboard_would_refuse_together_are_not_mixed(
    tmp_path: Path, files: Files, record: str, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    other = CELLS[0].with_name("clean-10pct-s0.json")
    mine = {
        record.replace("clean-1pct", "clean-10pct"): edited(other.read_bytes(), change),
        record.replace("clean-1pct-s0.json", "clean-10pct-s0.npz"): other.with_suffix(".npz").read_bytes(),
    }
    told = refused(pack(tmp_path / "in.zip", files), lay(tmp_path / "results", mine))
    assert reason in told
    assert "import into a folder of its own with --results" in told
    both = {**files, **mine}
    told = refused(pack(tmp_path / "both.zip", both), tmp_path / "other")
    assert reason in told
    assert "What its maker can cure" in told
    with pytest.raises(BadRecord, match=reason):
        bundle.write(lay(tmp_path / "both", both), tmp_path / "out.zip")
