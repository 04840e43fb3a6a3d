"""From names to a checkpoint: made once, found again, picked up where it was cut off."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness import plan, settings, weights
from harness.contracts import Batch
from harness.errors import CheckpointError, MissingDataset, UsageError
from harness.phantom import STAMP, Cohort
from harness.plan import CorpusPlan, MethodPlan
from harness.pretrain import checkpoint, make, reading
from harness.pretrain.checkpoint import CARD, WEIGHTS, Checkpoint
from harness.pretrain.log import EPOCHS, STEPS
from harness.pretrain.state import STATE
from harness.provenance import Code
from harness.settings import Settings
from tests import fakes
from tests.fakes import Tiny


@pytest.fixture
def method(tmp_path: Path) -> MethodPlan:
    return plan.method(str(fakes.write_method(tmp_path)), "demo")


@pytest.fixture
def corpus(tmp_path: Path, method: MethodPlan) -> CorpusPlan:
    return plan.corpus(method, str(fakes.write_dataset(tmp_path)))


def trained(
    method: MethodPlan,
    corpus: CorpusPlan,
    current: Settings | None = None,
    *,
    seed: int = 0,
    stand_in: bool = False,
) -> Checkpoint:
    return make.trained(method, corpus, current or settings.load(), seed=seed, stand_in=stand_in)


def in_store() -> list[str]:
    return [item.folder.name for item in checkpoint.listing(settings.load().checkpoints)]


def test_what_was_trained_is_taken_from_the_store(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(method, corpus)
    monkeypatch.setattr(make, "Training", None)
    assert trained(method, corpus) == first
    assert in_store() == [first.name]
    card = first.card
    assert (card.method, card.corpus, card.corpus_kind, card.seed) == ("tiny", "toy", "phantom", 0)
    assert card.profile == method.profile
    assert card.steps == 10  # 19 pairs for training: two batches, five times
    assert card.text_sample == tuple(reading.TEXT.count(chr(97 + number)) for number in range(fakes.LETTERS))
    assert {"recall@1", "chance@1"} <= card.retrieval.keys()
    assert sorted(path.name for path in first.folder.iterdir() if "events" not in path.name) == [
        "card.json",
        "health.json",
        "health.svg",
        "log.csv",
        "validation.csv",
        "weights.safetensors",
    ]


def test_two_sweeps_that_ask_at_once_find_the_same_initial_weights(
    method: MethodPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, built = make.network, []

    def slowly(wanted: MethodPlan, seed: int) -> nn.Module:
        built.append(seed)
        time.sleep(0.2)  # long enough for the other to ask
        return build(wanted, seed)

    monkeypatch.setattr(make, "network", slowly)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda seed: make.untrained(method, settings.load(), seed=seed), (0, 0))
    assert (built, first) == ([0], second)


def test_its_network_is_the_trained_one(method: MethodPlan, corpus: CorpusPlan) -> None:
    found = trained(method, corpus)
    loaded, start = make.load(method, found), make.network(method, 0)
    again = trained(method, corpus)
    for name, value in make.load(method, again).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    for name, value in start.named_parameters():
        assert not torch.equal(loaded.get_parameter(name), value), name


def test_another_seed_is_another_checkpoint_of_the_family(method: MethodPlan, corpus: CorpusPlan) -> None:
    one, other = trained(method, corpus), trained(method, corpus, seed=1)
    assert one.family == other.family
    assert one.card.weights != other.card.weights
    assert sorted(in_store()) == sorted([one.name, other.name])


def cut_off(method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch, step: int) -> Path:
    """The folder of a training that ends in this step of those that are left."""
    loss = Tiny.loss

    def unplugged(self: Tiny, batch: Batch) -> object:
        if len(self.trained) == step:
            raise KeyboardInterrupt
        return loss(self, batch)

    with monkeypatch.context() as during:
        during.setattr(Tiny, "loss", unplugged)
        with pytest.raises(KeyboardInterrupt):
            trained(method, corpus)
    [folder] = settings.load().checkpoints.glob(".*.training")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("step", [1, 7])
def test_a_training_that_was_cut_off_is_finished(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    cut_off(method, corpus, monkeypatch, step)
    assert in_store() == []
    finished = trained(method, corpus)
    whole = trained(method, corpus, replace(settings.load(), home=tmp_path / "elsewhere"))
    assert finished.card.weights == whole.card.weights  # hash of the file
    assert finished.name == whole.name


def test_what_kills_left_of_a_state_does_not_come_into_the_store(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = cut_off(method, corpus, monkeypatch, step=1) / f".{STATE}.0123456789ab.part"
    left.write_bytes(b"half")
    assert not (trained(method, corpus).folder / left.name).exists()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("codes", "dirty"), [("aa", False), ("aba", True), ("Aa", True)])
def test_a_training_that_no_one_commit_holds_is_marked(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch, codes: str, dirty: bool
) -> None:
    """A letter for the commit of each of its parts, a large one where some of it was not committed."""

    def by(code: str) -> Callable[[MethodPlan], Code]:
        return lambda _: Code(code.lower() * 40, code.isupper(), "1", "3.11", "Linux", {})

    *before, last = codes
    for code in before:
        monkeypatch.setattr(make, "_code", by(code))
        cut_off(method, corpus, monkeypatch, step=3)
    monkeypatch.setattr(make, "_code", by(last))
    card = trained(method, corpus).card
    assert (card.commit, card.dirty) == (last.lower() * 40, dirty)


def test_a_disk_that_is_full_at_the_end_leaves_no_checkpoint(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr(checkpoint, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            trained(method, corpus)
    assert in_store() == []
    assert trained(method, corpus).name in in_store()


def test_the_state_goes_when_the_checkpoint_is_on_the_disk(
    method: MethodPlan,
    corpus: CorpusPlan,
    monkeypatch: pytest.MonkeyPatch,
    synced: list[tuple[int, int]],
) -> None:
    rename, unlink, moved, deleted = Path.replace, Path.unlink, [], []

    def moving(self: Path, target: Path) -> Path:
        if self.suffix == ".training":
            moved.append(len(synced))
        return rename(self, target)

    def deleting(self: Path, missing_ok: bool = False) -> None:
        if self.name == STATE:
            deleted.append(len(synced))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "replace", moving)
    monkeypatch.setattr(Path, "unlink", deleting)
    folder = trained(method, corpus).folder
    [move], [deletion] = moved, deleted
    before, between = dict(synced[:move]), dict(synced[move:deletion])
    for found in ((folder / name).stat() for name in (WEIGHTS, CARD, STEPS, EPOCHS)):
        assert before[found.st_ino] == found.st_size
    assert folder.stat().st_ino in before
    assert folder.parent.stat().st_ino in between


def test_a_missing_text_encoder_is_said_before_any_picture_is_drawn(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def none(*_: object) -> str:
        raise CheckpointError("no weights for the text encoder")

    monkeypatch.setattr(Tiny, "text_key", property(none, lambda *_: None), raising=False)
    with pytest.raises(CheckpointError, match="no weights for the text encoder"):
        trained(method, corpus)
    assert not home.exists()


def test_a_device_that_is_not_there_is_said_before_any_picture_is_drawn(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("HARNESS_DEVICE", "cuda:99")
    with pytest.raises(UsageError, match="cuda:99"):
        trained(method, corpus)
    assert not home.exists()


def test_texts_are_prepared_where_the_method_trains(
    method: MethodPlan, corpus: CorpusPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def prepare(self: Tiny, texts: Sequence[str]) -> Tensor:
        raise Stop(next(self.parameters()).device.type)

    monkeypatch.setattr(Tiny, "prepare_text", prepare)
    monkeypatch.setattr(make.device, "choose", lambda _: torch.device("meta"))
    with pytest.raises(Stop, match="meta"):
        trained(method, corpus)


# --- where the corpus comes from ----------------------------------------------------------------------


def test_a_corpus_missing_under_the_data_roots_is_an_error_or_a_phantom_that_is_said_and_recorded(
    method: MethodPlan, corpus: CorpusPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    nothing = replace(settings.load(), data_roots=(tmp_path / "data",))
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingDataset, match="no Toy X-rays under"):
        trained(method, corpus, nothing)
    assert in_store() == []
    found = trained(method, corpus, nothing, stand_in=True)
    assert found.card.corpus_kind == "phantom"
    assert "the data roots hold no toy: using a PHANTOM of it" in caplog.text


def test_a_real_corpus_is_recorded_as_such(method: MethodPlan, corpus: CorpusPlan, tmp_path: Path) -> None:
    root = tmp_path / "data" / "toy"
    root.mkdir(parents=True)
    fakes.write_toy(root, Cohort("toy", 30, 5, (10, 10)), 1)
    (root / STAMP).unlink()
    phantom = trained(method, corpus)
    real = trained(method, corpus, replace(settings.load(), data_roots=(tmp_path / "data",)))
    assert real.card.corpus_kind == "real"
    assert real.family != phantom.family


# --- nothing to train ---------------------------------------------------------------------------------


def test_initial_weights_are_a_checkpoint_per_seed() -> None:
    current, random_init = settings.load(), plan.method("random_init", "demo")
    one, other = (make.untrained(random_init, current, seed=seed) for seed in (0, 1))
    assert make.untrained(random_init, current, seed=0) == one
    assert one.card.weights != other.card.weights
    assert one.family == other.family
    assert (one.card.corpus, one.card.corpus_kind, one.card.steps) == (None, None, 0)
    expected = make.network(random_init, 0).state_dict()
    for name, value in make.load(random_init, one).state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_initial_weights_that_the_method_s_file_makes_no_more_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of an encoder of one's own that was trained again under the same name and version."""
    current, random_init = settings.load(), plan.method("random_init", "demo")
    find = partial(weights.current, random_init, current, 0, "phantom")
    assert find() is None
    stored = make.untrained(random_init, current, seed=0)
    assert find() == stored
    build = make.network

    def again(wanted: MethodPlan, seed: int) -> nn.Module:
        return build(wanted, seed + 7)

    monkeypatch.setattr(make, "network", again)
    refusal = rf"{stored.folder} has other weights .*encoder\..* name them: {stored.name} "
    with pytest.raises(CheckpointError, match=refusal):
        find()

    def gone(*_: object) -> nn.Module:
        raise FileNotFoundError("mine.pt")

    monkeypatch.setattr(make, "network", gone)
    assert find() == stored
    assert f"{stored.name} cannot be compared with random_init: FileNotFoundError: mine.pt" in caplog.text


def test_published_weights_are_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    floor = plan.method("random_init", "demo")
    stored = make.untrained(floor, settings.load(), seed=0)
    image = replace(floor.profile.image, pretrained=True)
    profiles = {"demo": replace(floor.profile, image=image)}
    monkeypatch.setattr(make, "network", None)
    make.require_same(replace(floor, card=replace(floor.card, profiles=profiles)), stored)
    assert caplog.messages == []  # else it would be said that they cannot be compared
