"""What a command asks for, checked by name: nothing here needs torch, pandas or data."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from harness import plan, registry
from harness.contracts import DatasetCard, MethodCard, Split, Task
from harness.errors import ImpossiblePairing, UnknownName, UsageError
from tests import fakes

SPLITS = {"clean": Split("test", 0.1)}
LINEAR = Task(("linear",), ("Edema",), "macro_auroc", 1, SPLITS)  # type: ignore[arg-type]
WORDS = replace(LINEAR, kinds=("zero-shot",), version=3)
XRAYS = replace(fakes.TOY, title="X-rays", tasks=(LINEAR, WORDS), corpus=None)
UNTRAINED = replace(fakes.PROFILE, recipe=None, text=None)


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house with a trained method and a floor, a dataset with two tasks and two corpora."""
    cards: dict[str, MethodCard | DatasetCard] = {
        "methods/tiny.py": replace(fakes.CARD, trained_on=("elsewhere", "notes")),
        "methods/floor.py": replace(fakes.CARD, profiles={"demo": UNTRAINED}, trained_on=()),
        "tasks/xrays.py": XRAYS,
        "tasks/letters.py": fakes.TOY,
        "tasks/notes.py": fakes.TOY,
    }
    for name, card in cards.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"import no_such_package\nCARD = {card!r}\n")
    monkeypatch.setattr(registry, "PACKAGE_ROOT", tmp_path)
    return tmp_path


def cell(method: str = "tiny", task: str = "xrays", **changes: Any) -> plan.CellPlan:
    asked = {"profile": "demo", "protocol": "clean", "fraction": 0.1, "seed": 3, **changes}
    return plan.cell(method, task, **asked)


def test_a_cell_s_plan_holds_what_its_names_stand_for() -> None:
    found = cell()
    assert (found.method.name, found.method.profile_name) == ("tiny", "demo")
    assert found.method.profile == fakes.PROFILE
    assert (found.dataset, found.task_id, found.task) == ("xrays", "xrays:linear", LINEAR)
    assert found.dataset_card == XRAYS
    assert (found.protocol, found.fraction, found.seed) == ("clean", 0.1, 3)
    assert found.labels_used == 0.1
    assert cell(task="xrays:zero-shot", fraction=1).task == WORDS


def test_what_can_be_trained_has_a_recipe_at_that_size(house: Path) -> None:
    assert [item.name for item in plan.trainable("demo")] == ["tiny"]  # no floor
    assert plan.trainable("paper") == []
    assert plan.usable("paper") == ([], dict.fromkeys(("floor", "tiny"), "it has no paper profile"))
    (house / "methods" / "broken.py").write_text("CARD = MethodCard(\n")
    usable, without = plan.usable("demo")
    assert [item.name for item in usable] == ["floor", "tiny"] and list(without) == ["broken"]
    assert "broken.py" in without["broken"]  # said, not passed over
    (house / "methods" / "broken.py").unlink()
    [official] = plan.trainable("demo", official=True)
    assert official.profile == replace(fakes.PROFILE, official=True)
    with pytest.raises(UnknownName, match=r"unknown profile 'dem'\. Did you mean 'demo'"):
        plan.trainable("dem")


def test_files_are_named_by_their_paths(house: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((house / "methods" / "tiny.py").read_text())
    (tmp_path / "data.py").write_text((house / "tasks" / "xrays.py").read_text())
    found = cell(str(tmp_path / "mine.py"), f"{tmp_path / 'data.py'}:zero-shot", fraction=1)
    assert (found.method.name, found.dataset, found.task_id) == ("mine", "data", "data:zero-shot")
    assert (found.method.source, found.source) == (str(tmp_path / "mine.py"), str(tmp_path / "data.py"))


def test_a_file_is_found_from_whichever_folder_a_process_stands_in(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house)
    found = cell("methods/tiny.py", "tasks/xrays.py")
    corpus = plan.corpus(found.method, "tasks/notes.py")
    assert (found.method.source, found.source, corpus.source) == (
        str(house / "methods" / "tiny.py"),
        str(house / "tasks" / "xrays.py"),
        str(house / "tasks" / "notes.py"),
    )


WRONG: dict[str, tuple[dict[str, Any], type[UsageError], str]] = {
    "method": ({"method": "tinny"}, UnknownName, r"unknown method 'tinny'\. Did you mean 'tiny'"),
    "dataset": ({"task": "xray"}, UnknownName, "Did you mean 'xrays'"),
    "kind": ({"task": "xrays:lineal"}, UnknownName, "Did you mean 'linear'"),
    "kind not offered": ({"task": "xrays:detection"}, ImpossiblePairing, "It offers xrays:linear"),
    "corpus as task": ({"task": "notes"}, ImpossiblePairing, "pretrain --method METHOD --corpus notes"),
    "no words": (
        {"method": "floor", "task": "xrays:zero-shot"},
        ImpossiblePairing,
        "have one: tiny",
    ),
    "profile": ({"profile": "papr"}, UnknownName, r"unknown profile of tiny 'papr'\..*Available: demo"),
    "profile not offered": ({"profile": "paper"}, UnknownName, "Available: demo"),
    "protocol": ({"protocol": "cleen"}, UnknownName, "unknown protocol of xrays:linear 'cleen'.*'clean'"),
    "protocol not offered": ({"protocol": "published"}, UnknownName, "Available: clean"),
    "fraction of nothing": (
        {"fraction": 0.0},
        UsageError,
        r"in \(0, 1\], not 0\. One per cent is 0\.01",
    ),
    "percent": ({"fraction": 10}, UsageError, "not 10"),
    "negative": ({"fraction": -0.1}, UsageError, "not -0.1"),
    "no number": ({"fraction": float("nan")}, UsageError, "not nan"),
}


@pytest.mark.parametrize(("asked", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_by_name(
    asked: dict[str, Any], error: type[UsageError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        cell(**asked)
    assert caught.value.exit_code == 2


# --- corpora ------------------------------------------------------------------------------------------


def test_the_corpus_is_the_one_named_or_the_authors_own(house: Path, tmp_path: Path) -> None:
    tiny = plan.method("tiny", "demo")
    assert plan.corpus(tiny, None).name == "notes"  # `elsewhere` is not among ours
    assert plan.corpus(tiny, "letters").name == "letters"
    assert plan.corpus(replace(tiny, card=replace(tiny.card, trained_on=())), None).name == "letters"
    found = plan.corpus(tiny, str(house / "tasks" / "notes.py"))
    assert (found.source, found.name) == (str(house / "tasks" / "notes.py"), "notes")
    assert (found.card, found.split) == (fakes.TOY, fakes.TOY.corpus)


def test_no_plug_in_changes_what_others_are_trained_on(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("a_corpus", "a_corpus", "harness.tasks")
    (house / "a_corpus.py").write_text(f"CARD = {fakes.TOY!r}\n")
    monkeypatch.syspath_prepend(house)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    tiny = plan.method("tiny", "demo")
    assert list(registry.entries("tasks")) == ["letters", "notes", "xrays", "a_corpus"]
    assert plan.corpus(tiny, "a_corpus").card == fakes.TOY
    assert plan.corpus(replace(tiny, card=replace(tiny.card, trained_on=())), None).name == "letters"


def test_what_has_no_reports_or_nothing_to_train_is_refused() -> None:
    with pytest.raises(ImpossiblePairing, match=r"xrays has no reports .*Corpora: letters, notes"):
        plan.corpus(plan.method("tiny", "demo"), "xrays")
    with pytest.raises(ImpossiblePairing, match="floor is not trained"):
        plan.corpus(plan.method("floor", "demo"), None)
    with pytest.raises(UnknownName, match="Did you mean 'notes'"):
        plan.corpus(plan.method("tiny", "demo"), "note")


def test_what_learns_from_no_label_has_no_fraction() -> None:
    assert cell(task="xrays:zero-shot", fraction=1).labels_used is None
    with pytest.raises(UsageError, match=r"xrays:zero-shot learns from no label.*Leave --fraction out"):
        cell(task="xrays:zero-shot", fraction=0.1)


def test_validation_labels_are_cut_only_where_that_means_something() -> None:
    assert cell(cut_validation=True).cut_validation
    with pytest.raises(UsageError, match="Leave --cut-validation out"):
        cell(task="xrays:zero-shot", fraction=1, cut_validation=True)
