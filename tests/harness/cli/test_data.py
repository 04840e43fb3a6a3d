"""`data doctor` and `data prepare` as a user meets them: what they print, what they leave, how they end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness import prepare, registry, settings
from harness.cli.app import app
from harness.data import cache, locate, task_data
from harness.data.locate import Located
from harness.data.picture import Decoded
from harness.errors import HarnessError, ImpossiblePairing, UnknownName, UnreadableImage
from harness.phantom import Cohort
from harness.pretrain import corpus
from tests import fakes


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("chexpert", "openi"):
        cohort = Cohort(name, 40, seed=3, size=(128, 156))
        locate.write(registry.load("tasks", name), root / name, cohort, workers=1)
    return root


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", *arguments])


# --- doctor ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sound_folder_ends_with_0(data_root: Path) -> None:
    done = invoke("doctor", "chexpert", "--data-root", str(data_root))
    assert done.exit_code == 0, done.output
    assert "nothing that would change a result" in done.stdout
    report = json.loads(invoke("doctor", "chexpert", "--data-root", str(data_root), "--json").stdout)
    assert (report["sound"], report["kind"], report["findings"]) == (True, "phantom", [])


@pytest.mark.slow
def test_a_fault_ends_with_1_its_name_and_its_cure(data_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "chexpert"
    locate.write(registry.load("tasks", "chexpert"), root, Cohort("chexpert", 20, 3, (48, 56)), workers=1)
    picture = next(root.glob("train/*/*/view1_frontal.jpg"))
    picture.write_bytes(picture.read_bytes()[:300])
    done = invoke("doctor", "chexpert", "--data-root", str(tmp_path))
    assert done.exit_code == 1
    for word in (
        "pictures in its tables",
        "unreadable",
        "yes",
        "Download them again",
        "results would change",
    ):
        assert word in done.stdout
    done = invoke("doctor", "chexpert", "--data-root", str(tmp_path), "--json")
    assert done.exit_code == 1
    [finding] = json.loads(done.stdout)["findings"]
    assert (finding["name"], finding["matters"], finding["count"]) == ("unreadable", True, 1)
    assert str(picture) in finding["examples"][0]
    table = root / "train.csv"
    table.write_text(table.read_text().replace("Sex", "sx", 1))
    done = invoke("doctor", "chexpert", "--data-root", str(tmp_path))
    assert "not readable" in done.stdout and "pictures in its tables" not in done.stdout


# --- prepare -----------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are decoded for the cache from here on."""
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    paths: list[Path] = []
    decode = cache.decode

    def noting(path: Path, least: int) -> Decoded:
        paths.append(path)
        return decode(path, least)

    monkeypatch.setattr(cache, "decode", noting)
    return paths


@pytest.mark.slow
def test_a_run_finds_all_that_was_prepared(data_root: Path, decoded: list[Path]) -> None:
    done = invoke("prepare", "chexpert", "--data-root", str(data_root))
    assert done.exit_code == 0, done.output
    card = registry.dataset_card("chexpert")
    located = Located(data_root / "chexpert", "phantom")
    data = task_data.load(located, registry.load("tasks", "chexpert"), card, card.tasks[0], "clean")
    decoded.clear()
    current = settings.load()
    for name in ("imitate", "convirt", "random_init"):
        square = registry.method_card(name).profiles["demo"].preprocessing
        asked = cache.wanted("chexpert", data.frame, square.stored, square.geometry)
        images = cache.open_images(asked, folder=current.images, workers=1)
        assert images.cached
    assert decoded == []


def test_pre_training_finds_all_that_was_prepared(data_root: Path, decoded: list[Path]) -> None:
    assert invoke("prepare", "openi", "--data-root", str(data_root), "--method", "imitate").exit_code == 0
    decoded.clear()
    card, profile = registry.dataset_card("openi"), fakes.PROFILE
    imitate = registry.method_card("imitate").profiles["demo"]
    assert imitate.recipe is not None and profile.recipe is not None and card.corpus is not None
    recipe = replace(profile.recipe, text_units=imitate.recipe.text_units)
    current = settings.load()
    corpus.build(
        "openi",
        "phantom",
        registry.load("tasks", "openi").read(data_root / "openi"),
        card.corpus,
        replace(profile, recipe=recipe, preprocessing=imitate.preprocessing),
        fakes.Tiny(),
        images=current.images,
        texts=current.texts,
        workers=1,
    )
    assert decoded == []


def test_an_estimate_writes_nothing(data_root: Path, decoded: list[Path], home: Path) -> None:
    done = invoke("prepare", "chexpert", "--data-root", str(data_root), "--dry-run", "--method", "imitate")
    assert done.exit_code == 0
    assert not (home / "images").exists()
    assert "88 stretch" in done.stdout and "imitate" in done.stdout
    assert 0 < len(decoded) <= prepare.TRIED


@pytest.mark.slow
def test_a_method_without_the_profile_is_left_out_unless_it_is_named(data_root: Path, plug_in: str) -> None:
    arguments = ("prepare", "chexpert", "--data-root", str(data_root), "--profile", "paper", "--dry-run")
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    assert "imitate" in done.stdout and plug_in not in done.stdout
    assert f"left out: {plug_in}: it has no paper profile" in done.stderr
    assert isinstance(invoke(*arguments, "--method", plug_in).exception, UnknownName)


def test_too_small_a_disk_is_refused_with_what_is_needed(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    usage = shutil.disk_usage(data_root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    done = invoke("prepare", "chexpert", "--data-root", str(data_root))
    assert isinstance(done.exception, HarnessError)
    assert "HARNESS_HOME" in str(done.exception)
    assert not (home / "images").exists()


@pytest.mark.slow
def test_what_is_done_is_not_counted_again(data_root: Path, tmp_path: Path, decoded: list[Path]) -> None:
    """A picture that cannot be read costs no other, in no cache; the next estimate has only it to decode."""
    root = tmp_path / "chexpert"
    shutil.copytree(data_root / "chexpert", root)
    picture = next(root.glob("train/*/*/view1_frontal.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(whole[:300])
    arguments = ("prepare", "chexpert", "--data-root", str(tmp_path))
    done = invoke(*arguments)
    assert isinstance(done.exception, UnreadableImage) and str(picture) in str(done.exception)
    rows = [line.split() for line in invoke(*arguments, "--dry-run").stdout.splitlines() if "88" in line]
    assert [row[-4] for row in rows] == ["1", "1"]

    picture.write_bytes(whole)
    decoded.clear()
    assert invoke(*arguments).exit_code == 0
    tried = prepare.TRIED * len(rows)
    assert decoded[tried:] == [picture, picture]


def test_a_method_that_is_not_trained_has_no_use_for_a_corpus(data_root: Path) -> None:
    done = invoke("prepare", "openi", "--data-root", str(data_root), "--method", "random_init")
    assert isinstance(done.exception, ImpossiblePairing)
    assert "random_init would read no picture of openi" in str(done.exception)
