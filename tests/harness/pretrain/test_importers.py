"""From somebody's file to a checkpoint: every key is accounted for, what belongs to the weights is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import plan, registry, weights
from harness.errors import CheckpointError, UnknownName, UsageError
from harness.pretrain import checkpoint, importers, make
from harness.pretrain.checkpoint import CARD, Checkpoint, Imported
from tests import fakes
from tests.fakes import PROFILE, Tiny

BY_OTHERS = """

from dataclasses import replace

LAYOUTS = (
    Layout(
        "Tiny by others",
        replace(CARD.profiles["demo"], official=True),
        markers=("net.0.weight", "words.weight"),
        renamed={"net.": "encoder.", "net.head.": "image_head.", "words.": "text_head."},
        dropped={"*.position_ids": "a constant", "unused.*": "never used"},
        zeros=("text_head.bias",),
    ),
)
"""


@pytest.fixture
def method(tmp_path: Path) -> str:
    path = fakes.write_method(tmp_path)
    path.write_text(path.read_text() + BY_OTHERS)
    return str(path)


def state() -> dict[str, Tensor]:
    """The keys that others gave the weights of `source()`."""
    weights = source().state_dict()
    del weights["text_head.bias"]
    names = {"encoder.": "net.", "image_head.": "net.head.", "text_head.": "words."}
    renamed = {
        theirs + key.removeprefix(ours): value
        for key, value in weights.items()
        for ours, theirs in names.items()
        if key.startswith(ours)
    }
    assert len(renamed) == len(weights)
    return {
        **renamed,
        "net.position_ids": torch.arange(4),
        "unused.a": torch.ones(2),
        "unused.b": torch.ones(1),
    }


def source() -> Tiny:
    torch.manual_seed(3)
    model = Tiny(random=False)
    model.encoder(torch.randn(4, 3, 8, 8))  # moves the running means
    return model


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "theirs.pth")
    return folder / "theirs.pth"


def imported(folder: Path, content: object, method: str, **options: Any) -> Checkpoint:
    return importers.import_file(saved(folder, content), folder / "store", method=method, **options)


# --- round trip --------------------------------------------------------------------------------------


def test_pictures_are_read_as_by_the_source(tmp_path: Path, method: str) -> None:
    found = imported(tmp_path, {"state_dict": state()}, method)
    loaded = make.load(plan.method(method, "demo"), found)
    pictures = torch.randn(2, 3, 8, 8)
    ours, theirs = loaded.eval().encode_image(pictures), source().eval().encode_image(pictures)  # type: ignore[operator]
    assert torch.equal(ours.pooled, theirs.pooled)
    assert torch.equal(ours.embedding, theirs.embedding)
    assert loaded.state_dict()["text_head.bias"].eq(0).all()


def test_reports_are_read_as_its_method_reads_them(tmp_path: Path, method: str) -> None:
    """A recipe is not among somebody's weights; retrieval asks it for the sections."""
    plans = plan.method(method, "demo")
    assert plans.profile.recipe
    found = weights.source(plans, imported(tmp_path, state(), method))
    assert found.text_unit == plans.profile.recipe.text_units[-1]


@pytest.mark.parametrize(("name", "seed"), [("gloria-s1", 1), ("gloria-s12", 12), ("gloria", 0), (None, 0)])
def test_the_name_says_which_training_it_is(tmp_path: Path, method: str, name: str | None, seed: int) -> None:
    assert imported(tmp_path, state(), method, name=name).card.seed == seed


def test_the_card_says_what_was_taken_over(tmp_path: Path, method: str) -> None:
    found = imported(tmp_path, state(), method)
    content = (tmp_path / "theirs.pth").read_bytes()
    assert found.card.imported == Imported(
        file="theirs.pth",
        sha256=hashlib.sha256(content).hexdigest(),
        layout="Tiny by others",
        dropped={"a constant": ["net.position_ids"], "never used": ["unused.a", "unused.b"]},
    )
    assert found.name == f"tiny-imported-{hashlib.sha256(content).hexdigest()[:8]}-s0"
    card = found.card
    assert (card.method, card.method_version, card.steps, card.corpus) == ("tiny", 1, 0, "mimic_cxr")
    assert card.profile.preprocessing == PROFILE.preprocessing
    assert card.profile.official and card.profile.recipe is None
    assert imported(tmp_path, state(), method, name="other-s4", corpus="openi").card.corpus == "openi"


def test_the_corpus_is_named_as_the_dataset_that_it_is(tmp_path: Path, method: str) -> None:
    """Else a task on it would not be told that its pictures may have been trained on."""
    found = imported(tmp_path, state(), method, name="a-s0", corpus="MIMIC_CXR + CheXpert+private")
    assert found.card.corpus == "mimic_cxr+chexpert+private"
    with pytest.raises(UnknownName, match="Did you mean 'chexpert'"):
        imported(tmp_path, state(), method, name="b-s0", corpus="chexprt")


def test_it_is_listed_and_found_by_name_and_never_chosen_unasked(tmp_path: Path, method: str) -> None:
    found = imported(tmp_path, state(), method, name="published")
    assert (found.name, found.family) == ("published", "published")
    assert checkpoint.listing(tmp_path / "store") == [found]
    assert checkpoint.named(tmp_path / "store", "published", method="tiny", version=1) == found
    as_imported = replace(PROFILE, official=True, recipe=None)  # as of an untrained floor
    for profile in (PROFILE, replace(PROFILE, official=True), as_imported):
        assert checkpoint.fitting(tmp_path / "store", "tiny", 1, "paper", profile) == []


def test_cards_from_before_imports_are_read(tmp_path: Path, method: str) -> None:
    path = imported(tmp_path, state(), method).folder / CARD
    text = path.read_text()
    start, end = text.index(' "imported"'), text.index(' "seed"')
    path.write_text(text[:start] + text[end:])
    assert checkpoint.read(path.parent).card.imported is None


def test_half_precision_and_convolutions_over_one_pixel_fit(tmp_path: Path, method: str) -> None:
    theirs = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state().items()}
    theirs["words.weight"] = theirs["words.weight"][..., None]
    found = imported(tmp_path, theirs, method)
    weights = make.load(plan.method(method, "demo"), found).state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(weights["text_head.weight"], source().text_head.weight, rtol=1e-2, atol=0)


def test_files_of_old_torch_count_no_batches(tmp_path: Path, method: str) -> None:
    theirs = {key: value for key, value in state().items() if not key.endswith("num_batches_tracked")}
    found = imported(tmp_path, theirs, method)
    assert make.load(plan.method(method, "demo"), found).state_dict()["encoder.1.num_batches_tracked"] == 0


def test_tensors_that_share_memory_are_stored_apart(tmp_path: Path, method: str) -> None:
    theirs = state()
    flat = torch.cat([theirs["net.1.weight"], theirs["net.1.bias"]])
    theirs["net.1.weight"], theirs["net.1.bias"] = flat[:8], flat[8:]
    found = imported(tmp_path, theirs, method)
    weights = make.load(plan.method(method, "demo"), found).state_dict()
    assert torch.equal(weights["encoder.1.bias"], source().state_dict()["encoder.1.bias"])


# --- refused -----------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a key is missing": (lambda theirs: theirs.pop("net.head.bias"), r"missing here: net\.head\.bias\."),
    "a key too much": (
        lambda theirs: theirs.update(extra=torch.ones(1)),
        "Tiny by others has no keys extra",
    ),
    "a shape": (
        lambda theirs: theirs.update({"net.0.weight": torch.zeros(8, 3, 5, 5)}),
        r"Tiny by others has net\.0\.weight in the shape \[8, 3, 3, 3\], not \[8, 3, 5, 5\]",
    ),
    "transposed": (
        lambda theirs: theirs.update({"words.weight": torch.zeros(26, 4)}),
        r"words\.weight in the shape \[4, 26\], not \[26, 4\]",
    ),
    "two of one": (
        lambda theirs: theirs.update({"image_head.bias": theirs["net.head.bias"]}),
        r"Tiny by others has net\.head\.bias and image_head\.bias, which are one of ours",
    ),
    "not a number": (
        lambda theirs: theirs["net.1.running_var"].fill_(torch.nan),
        r"net\.1\.running_var is not finite",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_nearly_right_is_refused(
    tmp_path: Path, method: str, spoil: Callable[[dict[str, Tensor]], object], reason: str
) -> None:
    theirs = state()
    spoil(theirs)
    with pytest.raises(CheckpointError, match=rf"theirs\.pth.*{reason}"):
        imported(tmp_path, theirs, method)
    assert not (tmp_path / "store").exists()


def test_an_unknown_layout_is_answered_with_keys_and_known_ones(tmp_path: Path, method: str) -> None:
    with pytest.raises(
        UsageError, match=r"theirs\.pth is of no known layout.*keys are a, b\. Known: Tiny by others"
    ):
        imported(tmp_path, {"a": torch.ones(1), "b": torch.ones(1)}, method)


def test_weights_that_several_could_own_are_asked_about(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = tmp_path / "twin.py"
    twin.write_text(Path(method).read_text().replace("Tiny by others", "Twin"))
    found = [registry.entry("methods", source) for source in (method, str(twin))]
    known = {str(item.path): item for item in found}
    monkeypatch.setattr(registry, "entries", lambda group: known)
    path = saved(tmp_path, state())
    with pytest.raises(UsageError, match=r"--method tiny \(Tiny by others\) or --method twin \(Twin\)"):
        importers.import_file(path, tmp_path / "store")
    assert importers.import_file(path, tmp_path / "store", method=method).card.method == "tiny"


def test_a_broken_plug_in_stops_no_import(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n" + Path(method).read_text())
    known = {source: registry.entry("methods", source) for source in (str(broken), method)}
    monkeypatch.setattr(registry, "entries", lambda group: known)
    assert importers.import_file(saved(tmp_path, state()), tmp_path / "store").card.method == "tiny"
    assert "left out" in caplog.text and "no_such_package" in caplog.text


@pytest.mark.parametrize("name", ["a/b", "../a", ".hidden", "..", "a,b", "größe", "w (1)", "a ", "-x"])
def test_a_name_that_is_no_folder_s_everywhere_is_refused(tmp_path: Path, method: str, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a checkpoint's name"):
        imported(tmp_path, state(), method, name=name)


def test_nothing_is_overwritten(tmp_path: Path, method: str) -> None:
    first = imported(tmp_path, state(), method)
    with pytest.raises(UsageError, match=rf"there is a checkpoint {first.name} already.*--as"):
        imported(tmp_path, state(), method)
    with pytest.raises(UsageError, match=rf"there is a checkpoint {first.name} already"):
        imported(tmp_path, {}, method, name=first.name)  # said before the file is read


def test_no_file_and_no_method(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*nowhere\.pth"):
        importers.import_file(tmp_path / "nowhere.pth", tmp_path)
    with pytest.raises(UnknownName, match="unknown method"):
        importers.import_file(saved(tmp_path, state()), tmp_path / "store", method="nobody's")
