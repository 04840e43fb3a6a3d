"""Records and their predictions in one file that may leave the machine, and back from such a file.

Apart because both ways ask the same of every cell: does it name a place of this machine, and are its numbers
those of its predictions? Records are never edited: what may not leave is refused.

A bundle is a zip of records and predictions at their places below results/, with the sha256 of each in its
manifest. There are no pictures in it, and no ids of pictures or persons: predictions are arrays of numbers,
their ids hashed. Those hashes hold no secret, and ids are few enough to try them all: whoever does, or has
the dataset, can match them, which is what they are for.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from harness import differences, grouping, provenance, records
from harness.errors import BadRecord, HarnessError, NewerRecord, UnknownName, UsageError
from harness.files import NAME, file_hash, hash_bytes, replacing
from harness.metrics import score
from harness.records import Record

MANIFEST = "bundle.json"
LARGEST = 2**28  # bytes of one file unpacked: ten times the predictions of the largest test part

APART = "Keep them in two folders and export each with --results"

PLACE = re.compile(rf"(phantom|real)/{NAME}/{NAME}/{NAME}\.(json|npz)", re.ASCII)
"""Where a file of a bundle may lie: nowhere that leads out of the results folder."""


class Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    harness: str  # version that wrote it
    files: dict[str, str]  # place below results/ -> sha256


class Imported(NamedTuple):
    new: list[Path]
    known: int  # cells that were there already, byte for byte


def write(results: Path, bundle: Path, tasks: Sequence[str] = (), methods: Sequence[str] = ()) -> Manifest:
    """The cells whose task and method fit one of the patterns, or all. The same cells give the same file.

    Raises BadRecord for a cell that must not leave, UsageError when none fits, or where a file is already.
    """
    if bundle.exists():
        raise UsageError(f"{bundle} is there already, and nothing is replaced. Give a new file")
    every = list(records.read_all(results))
    cells = [
        (path, record)
        for path, record in every
        if _fits(record.cell.task, tasks) and _fits(record.cell.method, methods)
    ]
    files = {}
    for path, record in cells:
        check(path, record)
        for file in (path, path.with_suffix(".npz")):
            files[_place(file, results)] = file_hash(file)
    grouping.checked(cells, APART)
    if not files:
        for noun, patterns, names in (
            ("task", tasks, {record.cell.task for _, record in every}),
            ("method", methods, {record.cell.method for _, record in every}),
        ):
            if names and not any(_fits(name, patterns) for name in names):
                raise UnknownName(f"{noun} in {results}", patterns[0], names)
        raise UsageError(
            f"{results} has no record of these tasks and methods. See: python -m harness list results"
        )
    manifest = Manifest(format=1, harness=provenance.code().version, files=files)
    with replacing(bundle) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        # written under a fixed date: when a file was made is nobody's business, and equal content stays equal
        archive.writestr(zipfile.ZipInfo(MANIFEST), manifest.model_dump_json(indent=1))
        for name, digest in files.items():
            content = (results / name).read_bytes()
            if hash_bytes(content) != digest:
                raise BadRecord(f"{results / name} was replaced meanwhile. Export again")
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return manifest


def _place(file: Path, results: Path) -> str:
    place = file.relative_to(results).as_posix()
    if not PLACE.fullmatch(place):
        raise BadRecord(
            f"{file}: no bundle takes a name as there is in {place!r}. Give the method's file, or the "
            "checkpoint with --as, one of at most 200 ASCII letters, digits, blanks, dots and + - _, and run "
            "the cell again"
        )
    return place


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def read(bundle: Path, results: Path) -> Imported:
    """Takes over the cells of a bundle: all of them are checked before the first is written, each is written
    whole. Raises BadRecord, with nothing written, for a bundle that is not sound, a cell that is there
    already and is another, or cells that the leaderboard would refuse beside those that are there;
    UsageError where there is no such file."""
    if not bundle.is_file():
        raise UsageError(f"there is no file {bundle}. Give the path of one that results export has written")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            _unpack(bundle, folder)
            cells = list(records.read_all(folder))
            for path, record in cells:
                check(path, record)
            grouping.checked(cells, APART)
        except (BadRecord, MemoryError) as error:
            found = str(error).replace(f"{folder}/", "")
            if isinstance(error, NewerRecord):
                raise NewerRecord(f"{bundle}: nothing was imported. {found}") from error
            raise BadRecord(
                f"{bundle} is not sound, and nothing was imported. What its maker can cure: {found}"
            ) from error
        new = [path for path, record in cells if not _known(path, record, results, bundle)]
        coming = [(bundle / path.relative_to(folder), record) for path, record in cells]
        grouping.checked(
            [*records.read_all(results), *coming],
            "Nothing was imported: import into a folder of its own with --results",
        )
        targets = [results / path.relative_to(folder) for path in new]
        for path, target in zip(new, targets, strict=True):
            with replacing(target) as text, replacing(target.with_suffix(".npz")) as arrays:
                shutil.copyfile(path.with_suffix(".npz"), arrays)
                shutil.copyfile(path, text)
    return Imported(targets, len(cells) - len(new))


def _unpack(bundle: Path, folder: Path) -> None:
    """Raises BadRecord for a file, a name or a hash that the manifest does not have, or that is no cell's."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            manifest = Manifest.model_validate_json(_content(archive, MANIFEST))
            names = sorted(archive.namelist())
            if names != sorted([MANIFEST, *manifest.files]):
                raise BadRecord(f"{MANIFEST} lists other files than the bundle has")
            cells = {name.rpartition(".")[0] for name in manifest.files}
            if {f"{cell}.{kind}" for cell in cells for kind in ("json", "npz")} != set(manifest.files):
                raise BadRecord("a record without predictions, or predictions without a record")
            for name, expected in manifest.files.items():
                if not PLACE.fullmatch(name):
                    raise BadRecord(f"{name!r} is not the place of a record")
                content = _content(archive, name)
                if hash_bytes(content) != expected:
                    raise BadRecord(f"{name} is not the file that {MANIFEST} has the hash of")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise BadRecord(f"not a bundle of `results export`: {error}") from error


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
    if info.file_size > LARGEST or not plain:
        raise BadRecord(f"{name} is encrypted, packed in another way, or larger than {LARGEST >> 20} MiB")
    return archive.read(info)


def _known(path: Path, record: Record, results: Path, bundle: Path) -> bool:
    """Whether the cell is there, byte for byte. Raises BadRecord when it is there and is another."""
    there = records.path_of(results, record)
    if not there.exists():
        return False
    pairs = [(path, there), (path.with_suffix(".npz"), there.with_suffix(".npz"))]
    if all(other.exists() and file_hash(one) == file_hash(other) for one, other in pairs):
        return True
    mine, metric = records.read(there), record.task.metric
    value = mine.metrics[metric].value if metric in mine.metrics else None
    differing = [item.name for item in differences.fields(mine, record) if item.group != "circumstances"]
    names = ", ".join(differing) or "their circumstances or predictions alone"
    raise BadRecord(
        f"{there} is there already and is another: {metric} is {value} here and "
        f"{record.metrics[metric].value} in {bundle}. They differ in {names}. Nothing was imported: "
        "import into a folder of its own with --results, and see why with python -m harness compare"
    )


# --- what every cell of a bundle must be --------------------------------------------------------------


def check(path: Path, record: Record) -> None:
    """Raises BadRecord unless record and predictions tell nothing of a machine and agree with each other."""
    _check_size(path)
    found = records.predictions(path)
    texts = [*_texts(record.model_dump(mode="json")), *(("its predictions", name) for name in found.arrays)]
    for place, text in texts:
        if records.ADDRESS.search(text):
            raise BadRecord(
                f"{path}: {place} holds {text!r}, which looks like a place on somebody's machine. Records "
                "are never edited: run the cell again, which writes no such thing"
            )
    if not (
        found.images.dtype == found.persons.dtype == np.uint64
        and (found.images[1:] > found.images[:-1]).all()
    ):
        raise BadRecord(
            f"{path}: its predictions do not stand in the order of hashed ids. Run the cell again"
        )
    counted = len(found.images), len(np.unique(found.persons))
    test = record.parts["test"]
    if counted != (test.images, test.persons):
        raise BadRecord(
            f"{path}: its test part has {test.images} images of {test.persons} persons, but its predictions "
            f"are of {counted[0]} and {counted[1]}. Run the cell again"
        )
    try:
        scored = score.of(record.task.kind, found.arrays, record.task.labels)
        values = dict(zip(scored.names, scored(np.ones((len(found.images), 1)))[:, 0].tolist(), strict=True))
    except (HarnessError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise BadRecord(f"{path}: its predictions cannot be scored: {error}. Run the cell again") from error
    for name in sorted(set(values) | set(record.metrics)):
        told = record.metrics[name].value if name in record.metrics else None
        computed = values.get(name)
        if told is None or computed is None or not abs(told - computed) <= records.ROUNDING:
            raise BadRecord(
                f"{path}: metrics.{name} is {told} in the record, but {computed} by its predictions. Run the "
                "cell again"
            )


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON value with its dotted name, keys included."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield place, name
            yield from _texts(item, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, place)
    elif isinstance(value, str):
        yield place, value


def _check_size(path: Path) -> None:
    """Raises BadRecord where unpacked predictions would be too large."""
    file = path.with_suffix(".npz")
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise BadRecord(f"{file}: {error}. Run the cell again") from error
    if size > LARGEST:
        raise BadRecord(f"{file} unpacks to more than {LARGEST >> 20} MiB. Run the cell again")
