"""`data doctor` and `data prepare` as a user meets them: what they print, what they leave, how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness import registry
from harness.cli.app import app
from harness.data import locate
from harness.phantom import Cohort


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


def test_a_sound_folder_ends_with_0(data_root: Path) -> None:
    done = invoke("doctor", "chexpert", "--data-root", str(data_root))
    assert done.exit_code == 0, done.output
    assert "nothing that would change a result" in done.stdout
    report = json.loads(invoke("doctor", "chexpert", "--data-root", str(data_root), "--json").stdout)
    assert (report["sound"], report["kind"], report["findings"]) == (True, "phantom", [])


def test_a_fault_ends_with_1_its_name_and_its_cure(data_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "chexpert"
    locate.write(registry.load("tasks", "chexpert"), root, Cohort("chexpert", 20, 3, (48, 56)), workers=1)
    picture = next(root.glob("train/*/*/view1_frontal.jpg"))
    picture.write_bytes(picture.read_bytes()[:300])
    done = invoke("doctor", "chexpert", "--data-root", str(tmp_path))
    assert done.exit_code == 1
    for word in ("unreadable", "yes", "Download them again", "results would change"):
        assert word in done.stdout
    done = invoke("doctor", "chexpert", "--data-root", str(tmp_path), "--json")
    assert done.exit_code == 1
    [finding] = json.loads(done.stdout)["findings"]
    assert (finding["name"], finding["matters"], finding["count"]) == ("unreadable", True, 1)
    assert str(picture) in finding["examples"][0]
