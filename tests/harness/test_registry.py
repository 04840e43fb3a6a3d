"""Names, cards and pairings are checked from the files alone; a broken plug-in stops nothing else."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from harness import registry
from harness.contracts import Balanced, DatasetCard, MethodCard
from harness.errors import ImpossiblePairing, UnknownName, UsageError

METHOD = """
import no_such_package
CARD = MethodCard(
    "Toy", 1, "Doe", 2020, source="", licence="MIT", trained_on=(), profiles={"demo": PROFILE}
)
SIZE = 64
PROFILE = Profile(
    image=ImageBackbone("resnet18", options={"in_chans": 1, "offsets": [-1, -0.5]}),
    preprocessing=Preprocessing(SIZE, stored=72, geometry="pad", mean=[0, 0.5, 1], std=[0.25, 0.25, 0.25]),
    text=TEXT,
)
TEXT: TextBackbone = TextBackbone("bert", width=8, max_length=32, lower_case=True, pooling="cls")
def build(profile, *, official=False): ...
"""
WORDLESS = METHOD.replace("text=TEXT", "text=None")
DATASET = """
from harness.contracts import *
SPLITS = {"clean": Split("test", 0.1)}
TASKS = (
    Task(("linear",), ("Edema",), "macro_auroc", 1, SPLITS),
    Task(("zero-shot",), ("Edema",), "macro_auroc", 1, SPLITS),
    Task(("zero-shot",), ("Edema",), "accuracy", 1, SPLITS, name="2x10", balanced=Balanced(("Mass",), 10)),
)
CARD = DatasetCard(
    "Toy", source="", licence="", citation="", folders=(), markers=(), variants=(), tasks=TASKS,
)
def read(root): ...
def write_phantom(root, cohort, workers): ...
"""
CORPUS = DATASET.replace("tasks=TASKS", 'tasks=(), corpus=Split("test", 0.1)')


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a toy method, one without words, a dataset and a corpus."""
    for name, source in {
        "methods/toy.py": METHOD,
        "methods/wordless.py": WORDLESS,
        "methods/_shared.py": "",
        "methods/__init__.py": "",
        "tasks/xrays.py": DATASET,
        "tasks/reports.py": CORPUS,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(registry, "PACKAGE_ROOT", tmp_path)
    return tmp_path


def test_a_file_is_a_method_by_existing_and_is_not_imported(house: Path) -> None:
    found = registry.entries("methods")
    assert list(found) == ["toy", "wordless"]
    assert not any(item.error for item in found.values())
    assert "methods.toy" not in sys.modules


def test_a_card_is_read_without_running_its_file(house: Path) -> None:
    card = registry.method_card("toy")
    assert (card.title, card.year, card.has_text) == ("Toy", 2020, True)
    profile = card.profiles["demo"]
    assert profile.preprocessing.size == 64
    assert profile.image.options == {"in_chans": 1, "offsets": (-1, -0.5)}
    assert not registry.method_card("wordless").has_text


def test_a_card_is_parsed_once_and_anew_when_its_file_changes(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.method_card("toy")
    with monkeypatch.context() as patched:
        patched.setattr(registry.ast, "parse", None)
        assert registry.method_card("toy") is first
    (house / "methods/toy.py").write_text(METHOD.replace("2020", "2021"))
    assert registry.method_card("toy").year == first.year + 1


BROKEN = {
    "no card": ("x = 1", "it has no CARD"),
    "not Python": ("CARD = (", "was never closed"),
    "a call of its own": ('CARD = MethodCard(title=name("x"))', "line 1: a card holds literals and"),
    "an attribute": ("import os\nCARD = os.environ", "line 2: a card holds literals and"),
    "unknown field": (
        METHOD.replace("licence=", "license="),
        "line 3: .*unexpected keyword argument 'license'",
    ),
    "missing field": (METHOD.replace('licence="MIT", ', ""), "line 3: .*missing 1 required .*'licence'"),
    "misspelt word": (
        METHOD.replace('"pad"', '"padd"'),
        r"Preprocessing.geometry is 'padd', not Literal\['pad'",
    ),
    "wrong type": (METHOD.replace("2020, source", "'2020', source"), "MethodCard.year is '2020', not int"),
    "too few": (METHOD.replace("[0, 0.5, 1]", "[0, 1]"), r"Preprocessing.mean is \(0, 1\), not tuple"),
    "unknown profile": (METHOD.replace('"demo"', '"huge"'), "MethodCard.profiles is {'huge'"),
    "a dataset's card": (DATASET, "CARD is not a MethodCard"),
    "a circle": ("CARD = A\nA = CARD", "recursion"),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_listed_with_its_reason_and_stops_nothing_else(
    house: Path, source: str, reason: str
) -> None:
    (house / "methods" / "broken.py").write_text(source)
    found = registry.entries("methods")
    assert [name for name, item in found.items() if item.error] == ["broken"]
    with pytest.raises(UsageError, match=rf"(?s)method 'broken' cannot be used: .*broken\.py: .*{reason}"):
        registry.entry("methods", "broken")
    with pytest.raises(UnknownName, match=r"Available: toy, wordless$"):
        registry.entry("methods", "unheard-of")


def test_a_method_may_lie_anywhere(house: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(METHOD.replace("import no_such_package", "from harness.contracts import *"))
    assert registry.entry("methods", str(path)).name == "mine"
    # CARD stands above the names it uses: readable from the tree, yet no program
    with pytest.raises(UsageError, match=r"mine\.py cannot be imported: NameError: name 'PROFILE'"):
        registry.load("methods", str(path))
    with pytest.raises(UsageError, match="there is no file"):
        registry.entry("methods", str(tmp_path / "absent.py"))


def test_a_file_named_like_one_of_ours_is_refused(house: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "toy.py"
    path.parent.mkdir()
    path.write_text(METHOD)
    ours = house / "methods" / "toy.py"
    with pytest.raises(UsageError, match=rf"{path}: the name 'toy' is taken by {ours}. Rename the file"):
        registry.entry("methods", str(path))
    assert registry.entry("methods", str(ours)).name == "toy"
    path.with_name("xrays.py").write_text(METHOD)  # a dataset's name is free for a method
    assert registry.entry("methods", str(path.with_name("xrays.py"))).name == "xrays"


def test_a_dataset_without_the_clean_protocol_is_refused(house: Path) -> None:
    (house / "tasks" / "theirs.py").write_text(DATASET.replace('"clean"', '"published"'))
    with pytest.raises(UsageError, match=r"theirs\.py: a task's splits lack the clean protocol"):
        registry.dataset_card("theirs")


@pytest.mark.parametrize(("kind", "metric"), [("finetune", "dice"), ("segmentation", "accuracy")])
def test_a_metric_that_a_kind_does_not_have_is_refused_at_the_door(
    tmp_path: Path, kind: str, metric: str
) -> None:
    task = f"Task(kinds=('linear', {kind!r}), labels=('a',), metric={metric!r}, version=1, splits=SPLITS)"
    path = tmp_path / "own.py"
    path.write_text(
        "from harness.contracts import *\n\nSPLITS = {'clean': Split(0.1, 0.1)}\nCARD = DatasetCard('T', "
        f"source='', licence='', citation='', folders=(), markers=(), variants=(), tasks=({task},))\n"
    )
    with pytest.raises(
        UsageError, match=rf"own\.py: a task of kind \w+ has the metric '{metric}', not one of"
    ):
        registry.dataset_card(str(path))


def test_datasets_that_share_pictures_say_so_of_each_other() -> None:
    cards = {name: registry.dataset_card(name) for name in registry.entries("tasks")}
    pairs = {(one, other) for one, card in cards.items() for other in card.shares_pictures}
    assert pairs and {(other, one) for one, other in pairs} == pairs
    assert all(one != other and other in cards for one, other in pairs)


def test_what_is_edited_after_it_was_imported_does_not_run_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    path.write_text(DATASET + "WHEN = 'before'")
    assert registry.load("tasks", str(path)).WHEN == "before"
    path.write_text(DATASET + "WHEN = 'after'")
    assert registry.load("tasks", str(path)).WHEN == "before"


def test_a_file_without_its_functions_is_refused(house: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(DATASET)
    assert registry.load("tasks", str(path)).CARD == registry.dataset_card(str(path))
    half = path.with_name("half.py")
    half.write_text(path.read_text().replace("def write_phantom", "def write"))
    path = half
    with pytest.raises(UsageError, match=r"has no function write_phantom\(\).*read\(\), write_phantom\(\)"):
        registry.load("tasks", str(path))


def test_entry_points_of_other_packages(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[harness.methods]\n"
        "foreign = other_package.foreign\n"
        "toy = other_package.foreign\n"
        "gone = not_installed\n"
    )
    (site / "other_package").mkdir()
    (site / "other_package" / "__init__.py").write_text("")
    (site / "other_package" / "foreign.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    found = registry.entries("methods")
    assert found["foreign"].card == registry.method_card("toy")
    assert "the name is taken by" in found["toy (other_package.foreign)"].error
    assert "no module not_installed" in found["gone"].error
    assert not found["toy"].error


# --- tasks and pairings ----------------------------------------------------------------------------


def test_a_task_is_named_by_its_dataset_and_kind(house: Path) -> None:
    found = registry.task_of("xrays")
    assert (found.dataset, found.id, found.kind) == ("xrays", "xrays:linear", "linear")
    assert registry.task_of("xrays:zero-shot").task.metric == "macro_auroc"
    named = registry.task_of("xrays:zero-shot-2x10")
    assert (named.id, named.kind, named.task.metric) == ("xrays:zero-shot-2x10", "zero-shot", "accuracy")
    assert named.task.balanced == Balanced(("Mass",), per_class=10)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("xray", UnknownName, r"unknown dataset 'xray'\. Did you mean 'xrays'\? Available: reports, xrays"),
        ("xrays:linaer", UnknownName, "Did you mean 'linear'"),
        (
            "xrays:detection",
            ImpossiblePairing,
            "It offers xrays:linear, xrays:zero-shot, xrays:zero-shot-2x10",
        ),
        ("xrays:zero-shot-2x", UnknownName, "Did you mean 'zero-shot-2x10'"),
        ("reports", ImpossiblePairing, "a corpus to pre-train on.*pretrain --method METHOD --corpus reports"),
    ],
)
def test_a_task_that_cannot_be_is_refused(
    house: Path, text: str, error: type[UsageError], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.task_of(text)


def test_a_method_without_words_is_refused_where_words_are_needed(house: Path) -> None:
    registry.check_pairing("toy", registry.method_card("toy").has_text, "xrays:zero-shot", "zero-shot")
    registry.check_pairing("wordless", False, "xrays:linear", "linear")
    with pytest.raises(ImpossiblePairing, match=r"wordless has no text encoder\. .*: toy$"):
        registry.check_pairing("wordless", False, "xrays:zero-shot", "zero-shot")


# --- the files of this project -----------------------------------------------------------------------

FILES = [(group, name) for group in registry.CARD_TYPE for name in registry.entries(group)]


@pytest.mark.parametrize(("group", "name"), FILES, ids=[f"{group}-{name}" for group, name in FILES])
def test_the_card_read_is_the_card_run(group: registry.Group, name: str) -> None:
    card = registry.entry(group, name).card
    assert isinstance(card, MethodCard | DatasetCard)
    assert registry.load(group, name).CARD == card
