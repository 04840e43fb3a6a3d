"""`compare`, `results export` and `results import` as a user meets them; tables; what a record keeps of a
command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from harness import records, settings
from harness.cli import show
from tests import fakes
from tests.harness.command import harness

ROOT = Path(__file__).resolve().parents[3] / "results"


def test_two_records_are_compared_on_the_terminal(tmp_path: Path) -> None:
    first, second = (fakes.write(tmp_path / name, skill) for name, skill in (("a", 9.0), ("b", 0.0)))
    raw = json.loads(second.read_text())
    raw["data"]["fingerprint"], raw["head"]["validation"][0] = "e" * 64, 0.60000001
    raw["cost"]["seconds"]["head"] = 2.5
    second.write_text(json.dumps(raw))
    done = harness("compare", first, second)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["data.fingerprint", "f" * 12, "e" * 12] in lines
    assert ["cost.seconds.head", "1", "2.5"] in lines
    assert any("0.60000001" in line for line in done.out.splitlines())  # not rounded until both look alike
    order = [
        done.out.index(word) for word in ("shapes the number", "What followed", "changes no number", "Paired")
    ]
    assert order == sorted(order)
    shown = json.loads(harness("compare", first, second, "--json").out)
    assert shown["differ"]["inputs"] == [{"field": "data.fingerprint", "A": "f" * 64, "B": "e" * 64}]
    assert shown["test"]["A_less_B"]["value"] > 0.2
    assert shown["test"]["p"] < 0.0005
    assert lines[-1][-1] == "<0.001"


def test_what_one_side_alone_has_does_not_bury_the_answer(tmp_path: Path) -> None:
    for seed in range(13):
        fakes.write(tmp_path / "b", seed=seed)
    fakes.write(tmp_path / "a", seed=0)
    sides = tmp_path / "a", tmp_path / "b"
    done = harness("compare", *sides)
    assert "... 2 more, all of them with --json" in done.out and done.out.count(str(tmp_path / "b")) == 10
    assert len(json.loads(harness("compare", *sides, "--json").out)["only_B"]) == 12


def test_folders_are_compared_on_the_terminal(tmp_path: Path) -> None:
    for name, skill in (("a", 9.0), ("b", 0.0)):
        for seed in (0, 1):
            fakes.write(tmp_path / name, skill, seed=seed, method=name, family=f"{name}-x")
    extra = fakes.write(tmp_path / "b", fraction=1.0, method="b", family="b-x")
    done = harness("compare", tmp_path / "a", tmp_path / "b")
    assert done.code == 0, done.err
    assert "2 cells of A and B match by task, protocol, fraction, seed." in done.out
    assert f"Only in B:\n{extra}" in done.out
    shown = json.loads(harness("compare", tmp_path / "a", tmp_path / "b", "--json").out)
    assert [item["field"] for item in shown["differ"]["inputs"]] == [
        "cell.method",
        "cell.checkpoint",
        "pretraining.family",
        "pretraining.weights",
    ]
    [row] = shown["rows"]
    assert row["seeds"] == [0, 1]
    assert f"{row['paired']['p']:.3f}  {row['adjusted']:.3f}" in done.out
    extra.with_suffix(".npz").unlink()
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    assert (
        "No paired test of chexpert:linear, clean at 100 %"
        in harness("compare", tmp_path / "b", tmp_path / "c").out
    )


def test_what_one_checkpoint_or_too_wide_a_pattern_can_tell_is_said(tmp_path: Path) -> None:
    for fraction in (0.1, 1.0):
        for name in "abc":
            fakes.write(tmp_path, method=name, family=f"{name}-x", fraction=fraction)
    task = f"{tmp_path}/phantom/chexpert-linear"
    one = harness("compare", f"{task}/a-*", f"{task}/b-*").out
    said = "Where a side has one checkpoint, p tells checkpoints apart, and not methods."
    assert said in one
    for name in "de":  # the seeds of a named checkpoint are runs of one training
        for seed in (0, 1):
            fakes.write(
                tmp_path, method=name, family=f"{name}-x", seed=seed, checkpoint=0 if name == "e" else None
            )
    assert said in harness("compare", f"{task}/d-*", f"{task}/e-*").out
    assert said not in harness("compare", f"{task}/d-*", f"{task}/d-*").out
    wide = harness("compare", f"{task}/a-*", f"{task}/[bc]-*").out
    assert "0 cells of A and B match by task, protocol, fraction, seed, method and checkpoint." in wide
    assert "To compare two methods, give A and B one each, with cells of the same tasks." in wide


def test_phantom_and_real_are_refused_with_2(tmp_path: Path) -> None:
    paths = [fakes.write(tmp_path, kind=kind) for kind in ("phantom", "real")]
    assert "They differ in no field." in harness("compare", paths[0], paths[0]).out
    done = harness("compare", *paths)
    assert (done.code, done.out) == (2, "")
    assert "A was measured on phantom data and B on real" in done.err


@pytest.mark.slow
def test_cells_are_handed_on_and_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, bundle = tmp_path / "results", tmp_path / "mine.zip"
    [path, *_] = sorted((ROOT / "phantom").glob("chexpert-linear/*/clean-1pct-s0.json"))
    for file in (path, path.with_suffix(".npz")):
        (results / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, results / file.relative_to(ROOT))
    done = harness("results", "export", bundle, "--results", results, "--tasks", "*:linear, rsna:*")
    assert (done.code, done.out) == (0, f"{bundle}: 1 cells\n"), done.err
    for counts in ("1 cells imported, 0 were", "0 cells imported, 1 were"):
        done = harness("results", "import", bundle, "--results", tmp_path / "theirs")
        assert (done.code, done.out) == (0, f"{bundle}: {counts} there already\n"), done.err
        assert done.err == f"Next: python -m harness leaderboard --results {tmp_path / 'theirs'}\n"
    done = harness("leaderboard", "--results", tmp_path / "their")
    assert done.code == 2 and f"there is no folder {tmp_path / 'their'}" in done.err
    assert not (tmp_path / "their").exists()
    task = records.read(path).cell.task.partition(":")[0]  # alone it is its default kind
    method = ROOT.parent / "methods" / f"{records.read(path).cell.method}.py"
    again = ("results", "export", bundle, "--results", results, "--tasks", task, "--methods", method)
    done = harness(*again)
    assert done.code == 2 and f"{bundle} is there already, and nothing is replaced" in done.err
    bundle.unlink()
    done = harness(*again)
    assert (done.code, done.out) == (0, f"{bundle}: 1 cells\n"), done.err
    monkeypatch.setenv("HOME", str(tmp_path))
    done = harness("leaderboard", "--results=~/theirs")  # which no shell expands
    page = (tmp_path / "theirs" / "leaderboard.md").read_text()
    assert done.code == 0 and page.count("by `python -m harness leaderboard --results FOLDER`") == 2, done.err
    assert harness("list", "results", "--results=~/theirs", "--json").out.count('"cell"') == 1
    deep = tmp_path / "theirs" / "phantom"
    done = harness("leaderboard", "--results", deep)
    assert done.code == 2 and f"{deep} is no folder of results: it has none of phantom, real" in done.err
    assert not (deep / "leaderboard.md").exists()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(settings, "PACKAGE_ROOT", tmp_path)
    done = harness("leaderboard", "--results", results)  # by its name or not: the page of that folder
    assert done.code == 0 and not (results / "leaderboard.md").exists(), done.err
    assert harness("leaderboard", "--check").code == 0
    missing = harness("results", "import", tmp_path / "none.zip")
    assert missing.code == 2
    assert f"there is no file {tmp_path / 'none.zip'}" in missing.err


def test_a_table_shows_names_and_messages_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["view1[frontal].png", "RuntimeError: at [/pytorch/aten/x.cpp:1]", ":warning: [bold]"]
    show.table("[frontal]", ["[b]what", "why", "more"], [row])
    title, header, line = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert (title, header, line) == ("[frontal]", "[b]what why more", " ".join(row))


def test_a_record_keeps_no_place_of_the_machine() -> None:
    kept: list[Any] = []
    app = typer.Typer()

    @app.command()
    def verb(
        context: typer.Context,
        method: str = "imitate",
        methods: str = "",
        address: str | None = None,
        other_address: str | None = None,
        data_root: Path | None = None,
        results: Path = Path("/home/jane/results"),
        fraction: float = 1.0,
    ) -> None:
        kept.append(show.arguments(context))

    given = ["--method", "/home/jane/mine.py", "--methods", "imitate,~/b/c.py", "--address", "10.0.0.7:1"]
    done = CliRunner().invoke(app, [*given, "--data-root", "/data/xrays"])
    assert done.exit_code == 0, done.exception
    assert kept[0].given == {
        "method": "mine.py",
        "methods": "imitate,c.py",
        "address": "given",
        "data_root": "given",
    }
    assert kept[0].defaults == {"other_address": None, "results": "given", "fraction": 1.0}
