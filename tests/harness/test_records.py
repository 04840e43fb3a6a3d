"""A record read back is the record written, and what breaks the schema is named, never read."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness import differences, records
from harness.errors import BadRecord, NewerRecord
from tests import fakes


def test_a_record_and_its_predictions_come_back(tmp_path: Path) -> None:
    record, predictions = fakes.record(fraction=0.1, seed=3), fakes.predictions()
    path = records.write(tmp_path, record, predictions)
    assert path == tmp_path / "phantom/chexpert-linear/imitate-demo-1a2b3c4d-s3/clean-10pct-s3.json"
    digest = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    assert records.read(path) == record.model_copy(update={"predictions": digest})
    stored = records.predictions(path)
    np.testing.assert_equal(stored._asdict(), predictions._asdict())
    for name, array in stored.arrays.items():
        assert array.dtype == predictions.arrays[name].dtype
    assert list(records.read_all(tmp_path)) == [(path, records.read(path))]


def test_a_record_from_before_searches_is_one_without(tmp_path: Path) -> None:
    raw = fakes.record().model_dump(mode="json")
    del raw["cell"]["tuned"], raw["head"]["search"]
    assert records.Record.model_validate(raw) == fakes.record()


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key beside another fault": (
        lambda raw: raw["cell"].update(colour="red", fraction=0.0),
        "cell.fraction",
    ),
    "missing key": (lambda raw: raw["data"].pop("split"), "data.split"),
    "NaN metric": (lambda raw: raw["metrics"]["macro_auroc"].update(value=float("nan")), "macro_auroc.value"),
    "infinite cost": (lambda raw: raw["cost"].update(peak_memory_mib=float("inf")), "cost.peak_memory_mib"),
    "NaN argument": (lambda raw: raw["code"]["arguments"].update(fraction=float("nan")), "code.arguments"),
    "no metric of its task": (
        lambda raw: raw["task"].update(metric="accuracy"),
        "metrics lack 'accuracy', which task.metric names",
    ),
    "percent": (lambda raw: raw["metrics"]["macro_auroc"].update(value=81.5), "macro_auroc.value"),
    "no fraction": (lambda raw: raw["cell"].update(fraction=0.0), "cell.fraction"),
    "unknown protocol": (lambda raw: raw["cell"].update(protocol="lenient"), "cell.protocol"),
    "neither real nor phantom": (lambda raw: raw["data"].update(kind="mixed"), "data.kind"),
    "no time zone": (lambda raw: raw.update(written="2025-01-02T03:04:05"), "written"),
    "earlier schema": (lambda raw: raw.update(schema_version=2), "schema_version"),
}


@pytest.mark.parametrize(("change", "field"), BREAKS.values(), ids=BREAKS)
def test_what_breaks_the_schema_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], field: str
) -> None:
    raw = fakes.record().model_dump(mode="json")
    change(raw)
    with pytest.raises(ValidationError):
        records.Record.model_validate(raw)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(BadRecord, match=rf"record\.json: .*{field}.*run the cell again"):
        records.read(path)


def test_of_a_newer_record_it_is_the_harness_that_is_out_of_date(tmp_path: Path) -> None:
    path = fakes.write(tmp_path)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "schema_version": raw["schema_version"] + 1, "colour": "red"}))
    with pytest.raises(NewerRecord, match=r"s0\.json: schema_version: .* Update this one") as refused:
        records.read(path)
    assert "delete" not in str(refused.value)
    raw["cell"]["colour"] = "red"  # a field with a default raises no version
    path.write_text(json.dumps(raw))
    with pytest.raises(NewerRecord, match=r"s0\.json: cell\.colour: of another version .* Update this one"):
        records.read(path)


@pytest.mark.parametrize(
    "content", [b'{"cell": {"method": ', b"", b"\xff\x00"], ids=["half", "empty", "no text"]
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = fakes.write(tmp_path)
    path.write_bytes(content)
    with pytest.raises(BadRecord, match=r"clean-1pct-s0\.json: file"):
        list(records.read_all(tmp_path))


def test_records_in_a_folder_that_is_a_link_are_read(tmp_path: Path) -> None:
    """As those of a task that lie on another disk."""
    path = fakes.write(tmp_path)
    folder = path.parents[1]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert [found for found, _ in records.read_all(tmp_path)] == [path]
    assert [found.path for found in differences.cells(str(tmp_path))] == [path]


def test_a_record_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    path = fakes.write(tmp_path)
    path.rename(path.with_name("clean-100pct-s0.json"))
    with pytest.raises(BadRecord, match=r"holds the record of another cell, which belongs to .*1pct"):
        list(records.read_all(tmp_path))


@pytest.mark.parametrize("writer", ["np.savez_compressed", "write_json"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    path = fakes.write(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"harness.records.{writer}", full)
    for changes in ({"skill": 3.0}, {"seed": 1}):  # the same cell again, and another
        with pytest.raises(OSError, match="No space left"):
            fakes.write(tmp_path, **changes)
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert path in before


def _set_in_directory(file: Path, offset: int, value: int) -> None:
    """A byte of every entry in the directory of a zip."""
    content = bytearray(file.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", bytes(content)):
        content[entry.start() + offset] = value
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:200]),
    "flipped bits": lambda file: file.write_bytes(file.read_bytes().replace(b"\x00\x00", b"\x00\x07")),
    "encrypted": lambda file: _set_in_directory(file, 8, 1),
    "packed in another way": lambda file: _set_in_directory(file, 10, 99),
    "another field": lambda file: np.savez(file, images=np.zeros(2)),
    "lengths differ": lambda file: np.savez(
        file, images=np.zeros(2), persons=np.zeros(2), truth=np.zeros((3, 1)), scores=np.zeros((3, 1))
    ),
}


@pytest.mark.parametrize("hashed", [False, True], ids=["later", "as they were written"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_predictions_are_named(
    tmp_path: Path, damage: Callable[[Path], object], hashed: bool
) -> None:
    path = fakes.write(tmp_path)
    file = path.with_suffix(".npz")
    damage(file)
    if hashed and file.exists():
        raw = json.loads(path.read_text())
        raw["predictions"] = hashlib.sha256(file.read_bytes()).hexdigest()
        path.write_text(json.dumps(raw))
    with pytest.raises(BadRecord, match=r"clean-1pct-s0\.npz.*Run the cell"):
        records.predictions(path)


def test_a_kill_between_the_two_files_leaves_a_cell_that_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    path, move = fakes.write(tmp_path), Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target == path:
            raise Killed
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Killed):
        fakes.write(tmp_path, skill=3.0)
    assert list(records.read_all(tmp_path)) == [] and path.with_suffix(".npz").exists()
    monkeypatch.undo()
    records.predictions(fakes.write(tmp_path))


def test_predictions_of_another_record_are_refused(tmp_path: Path) -> None:
    path, other = fakes.write(tmp_path), fakes.write(tmp_path, skill=3.0, seed=1)
    other.with_suffix(".npz").replace(path.with_suffix(".npz"))
    with pytest.raises(BadRecord, match=r"npz is not the one that clean-1pct-s0\.json was written with"):
        records.predictions(path)


def test_predictions_are_sorted_by_hash_and_stay_together() -> None:
    images = [f"image-{row}" for row in range(50)]
    persons = [f"person-{row // 3}" for row in range(50)]
    truth = np.arange(50)[:, None] % 2
    scores = np.arange(50.0)[:, None]
    boxes = {"box_image": np.array([3, 3, 0, 49]), "box_corner": np.array([30, 31, 0, 49])}
    found = records.sorted_predictions(images, persons, {"truth": truth, "scores": scores, **boxes})
    assert (np.diff(found.images.astype(object)) > 0).all()
    by_hash = {int(records.hashed([name])[0]): row for row, name in enumerate(images)}
    rows = [by_hash[int(value)] for value in found.images]
    assert found.arrays["scores"][:, 0].tolist() == rows
    assert found.arrays["truth"][:, 0].tolist() == [row % 2 for row in rows]
    owners = [rows[place] for place in found.arrays["box_image"]]
    assert sorted(zip(owners, found.arrays["box_corner"], strict=True)) == [
        (0, 0),
        (3, 30),
        (3, 31),
        (49, 49),
    ]
    assert (np.diff(found.arrays["box_image"]) >= 0).all()
    np.testing.assert_array_equal(found.persons, records.hashed([persons[row] for row in rows]))


def test_a_hashed_id_is_the_first_half_of_a_sha256() -> None:
    digest = hashlib.sha256(b'["prediction","patient00001"]').hexdigest()
    assert records.hashed(["patient00001"]).tolist() == [int(digest[:16], 16)]


def test_reading_records_needs_neither_torch_nor_pandas() -> None:
    program = "import sys, harness.records; print({'torch', 'pandas', 'ray', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
