"""Honesty rule 4: real data, or a stamped phantom, and never one in the place of the other."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness import settings
from harness.contracts import DatasetCard, PhantomSize
from harness.data import locate
from harness.errors import DataError, MissingDataset, UsageError
from harness.files import write_json
from harness.phantom import STAMP, Cohort
from harness.settings import Settings

CARD = DatasetCard(
    title="Toy X-rays",
    source="ask the authors",
    licence="",
    citation="",
    folders=("Toy-v1.0", "Toy-v1.0-small"),
    markers=("train.csv", "images"),
    variants=(),
    tasks=(),
    phantom={"demo": PhantomSize(persons=3, height=32, width=32)},
)


class Writer:
    """Writes the toy's layout and counts how often."""

    def __init__(self) -> None:
        self.calls: list[tuple[Cohort, int]] = []

    def write_phantom(self, root: Path, cohort: Cohort, workers: int) -> None:
        self.calls.append((cohort, workers))
        toy(root)
        write_json(root / STAMP, cohort.describe())


def toy(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("")
    return folder


def looking_in(*roots: Path) -> Settings:
    return replace(settings.load(), data_roots=roots)


def test_a_folder_that_is_closed_to_one_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a group that one is not in; the tests' user may have every right."""
    closed = tmp_path / "toy"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda folder, mode: mode == os.F_OK or folder != closed)
    with pytest.raises(DataError, match=f"no Toy X-rays is found, but {closed} may not be read") as caught:
        locate.real("toy", CARD, looking_in(tmp_path))
    assert not isinstance(caught.value, MissingDataset)  # for which a phantom may stand in
    open_one = toy(tmp_path / "other" / "toy")
    assert locate.real("toy", CARD, looking_in(tmp_path, tmp_path / "other")).root == open_one


@pytest.mark.parametrize("place", [".", "Toy-v1.0", "Toy-v1.0-small", "toy"])
def test_a_dataset_is_the_root_or_a_folder_named_as_the_download(tmp_path: Path, place: str) -> None:
    folder = toy(tmp_path / "data" / place)
    found = locate.real("toy", CARD, looking_in(tmp_path / "data"))
    assert found.kind == "real"
    assert found.root.samefile(folder)


def test_roots_are_searched_in_order(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    first, second = toy(tmp_path / "first" / "toy"), toy(tmp_path / "second" / "toy")
    assert locate.real("toy", CARD, looking_in(tmp_path / "empty", first.parent, second.parent)).root == first


def test_either_of_two_markers_will_do(tmp_path: Path) -> None:
    card = replace(CARD, markers=("labels.csv or train.csv", "images or p*s"))
    folder = toy(tmp_path / "toy")
    assert locate.real("toy", card, looking_in(tmp_path)).root == folder
    (folder / "images").rename(folder / "pictures")
    assert locate.real("toy", card, looking_in(tmp_path)).root == folder
    (folder / "train.csv").unlink()
    with pytest.raises(MissingDataset, match=rf"{folder} is there, but lacks labels.csv or train.csv\. How"):
        locate.real("toy", card, looking_in(tmp_path))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingDataset, match=r"looked for labels.csv or train.csv and images or p\*s there"):
        locate.real("toy", card, looking_in(tmp_path))


def test_what_carries_the_stamp_is_a_phantom_wherever_it_lies(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / STAMP).write_text("{}")
    assert locate.real("toy", CARD, looking_in(tmp_path)).kind == "phantom"


def test_a_missing_dataset_is_an_error_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "train.csv").write_text("")  # half a dataset
    with pytest.raises(MissingDataset) as caught:
        locate.real("toy", CARD, looking_in(tmp_path))
    for part in ("Toy X-rays", f"{tmp_path / 'toy'} is there, but lacks images", "ask the authors"):
        assert part in str(caught.value)
    assert caught.value.begun == f"{tmp_path / 'toy'} is there, but lacks images"
    (tmp_path / "toy" / "train.csv").unlink()
    (tmp_path / "toy").rmdir()
    with pytest.raises(MissingDataset) as caught:
        locate.real("toy", CARD, looking_in(tmp_path))
    for part in ("Toy X-rays", str(tmp_path), "train.csv", "images", "Toy-v1.0-small", "ask the authors"):
        assert part in str(caught.value)


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent is not a folder\. Check --data-root"):
        locate.real("toy", CARD, looking_in(tmp_path / "absent"))


def test_a_root_behind_the_one_that_has_it_is_a_folder_too(tmp_path: Path) -> None:
    """Else another machine, where it is mounted, may find another copy."""
    toy(tmp_path / "toy")
    with pytest.raises(UsageError, match="absent is not a folder"):
        locate.real("toy", CARD, looking_in(tmp_path, tmp_path / "absent"))


def test_a_phantom_is_written_once(home: Path) -> None:
    writer, current = Writer(), settings.load()
    first = locate.phantom("toy", CARD, writer, current)
    assert locate.phantom("toy", CARD, writer, current) == first
    [(cohort, workers)] = writer.calls
    assert (cohort.dataset, cohort.persons, cohort.size) == ("toy", 3, (32, 32))
    assert workers == current.workers
    assert first.kind == "phantom"
    assert first.root.parent == home / "phantoms"
    assert locate.stamp(first.root)["persons"] == 3


def test_another_size_is_another_folder() -> None:
    writer, current = Writer(), settings.load()
    larger = replace(CARD, phantom={"demo": PhantomSize(4, 32, 32)})
    roots = {locate.phantom("toy", card, writer, current).root for card in (CARD, larger)}
    assert len(roots) == len(writer.calls) == 2


def test_a_phantom_that_failed_half_way_is_not_there(home: Path) -> None:
    class Failing(Writer):
        def write_phantom(self, root: Path, cohort: Cohort, workers: int) -> None:
            super().write_phantom(root, cohort, workers)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        locate.phantom("toy", CARD, Failing(), settings.load())
    assert list((home / "phantoms").iterdir()) == []
    assert locate.phantom("toy", CARD, Writer(), settings.load()).kind == "phantom"


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    writer, cohort = Writer(), Cohort("toy", 3, 0, (32, 32))
    mine = toy(tmp_path / "mine")
    with pytest.raises(DataError, match="not empty and not a phantom"):
        locate.write(writer, mine, cohort, workers=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    locate.write(writer, empty, cohort, workers=1)
    with pytest.raises(DataError, match="holds a phantom already"):
        locate.write(writer, empty, cohort, workers=1)
    assert len(writer.calls) == 1


# --- what a run reads ---------------------------------------------------------------------------------


def found(*roots: Path, stand_in: bool = False) -> locate.Located:
    return locate.find("toy", CARD, Writer(), looking_in(*roots), "demo", stand_in=stand_in)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


def test_without_a_data_root_a_phantom_is_said_before_it_is_drawn(said: pytest.LogCaptureFixture) -> None:
    class Listening(Writer):
        def write_phantom(self, root: Path, cohort: Cohort, workers: int) -> None:
            assert "no data root is configured: using a PHANTOM of toy" in said.text
            super().write_phantom(root, cohort, workers)

    assert locate.find("toy", CARD, Listening(), looking_in(), "demo").kind == "phantom"
    assert "HARNESS_DATA" in said.text


def test_a_phantom_among_the_data_roots_is_said_too(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    write_json(toy(tmp_path / "toy") / STAMP, {})
    assert found(tmp_path).kind == "phantom"
    assert f"{tmp_path / 'toy'} is a PHANTOM of toy" in said.text


def test_real_data_need_no_words(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    toy(tmp_path / "toy")
    assert found(tmp_path).kind == "real"
    assert said.text == ""


def test_only_where_it_is_asked_for_a_phantom_stands_in(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MissingDataset):
        found(tmp_path)
    assert said.text == ""
    assert found(tmp_path, stand_in=True).kind == "phantom"
    assert "the data roots hold no toy: using a PHANTOM" in said.text
    (tmp_path / "toy").mkdir()
    assert found(tmp_path, stand_in=True).kind == "phantom"
    lacking = f"({tmp_path / 'toy'} is there, but lacks train.csv and images)"
    assert f"the data roots hold no toy {lacking}: using a PHANTOM" in said.text


def test_a_dataset_whose_card_has_no_phantom_asks_for_data() -> None:
    with pytest.raises(MissingDataset, match=r"toy has no phantom of size 'paper'\. Use real data"):
        locate.find("toy", CARD, Writer(), looking_in(), "paper")
