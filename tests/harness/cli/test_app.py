"""The command line as a user meets it: instant help, exit codes, JSON, errors that say the cure."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import registry, settings
from harness.cli import sweep
from harness.cli.app import main
from tests import fakes

HEAVY = {"torch", "torchvision", "timm", "transformers", "ray", "pandas", "sklearn", "scipy", "numpy"}


def harness(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["list", "methods"],
        ["list", "tasks"],
        ["checkpoints", "import", "--help"],
        ["run", "--method=x", "--task=y"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_there_is_work(arguments: Sequence[str]) -> None:
    program = (
        "import sys\nfrom harness.cli.app import main\n"
        f"sys.argv = ['harness', *{list(arguments)!r}]\n"
        "try:\n    main()\n"
        f"finally:\n    sys.stderr.write('heavy: ' + ' '.join(sorted({HEAVY} & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.endswith("heavy: ")


def test_help_names_every_verb_and_the_first_step() -> None:
    shown = harness("--help").stdout
    verbs = ("run", "pretrain", "checkpoints", "leaderboard", "compare", "results", "list", "data")
    for word in (*verbs, "--method imitate"):
        assert word in shown


@pytest.mark.slow
@pytest.mark.parametrize("group", ["methods", "tasks"])
def test_list_is_for_machines_too(group: registry.Group) -> None:
    rows = json.loads(harness("list", group, "--json").stdout)
    key = {"methods": "name", "tasks": "id"}[group]
    assert {row[key].split(":")[0] for row in rows} == set(registry.entries(group))
    assert not any(row["error"] for row in rows)


@pytest.mark.slow
def test_tasks_are_listed_with_all_that_their_cards_say() -> None:
    rows = {row["id"]: row for row in json.loads(harness("list", "tasks", "--json").stdout)}
    assert rows["chexpert:linear"]["protocols"]["clean"] == {
        "train": "train 223,414",
        "validation": "10 % of the persons",
        "test": "valid 234",
    }
    assert rows["openi"]["protocols"]["clean"]["train"] == "all 7,470"
    assert rows["chexpert:zero-shot-5x200"]["protocols"]["published"] == {
        "train": "none",
        "validation": "none",
        "test": "5 draws of up to 200 a label from train 223,414",
    }
    long = harness("list", "tasks", "--long").stdout
    for row in rows.values():
        for fact in ("id", "kind", "title", "licence", "citation", "source"):
            assert row[fact] and row[fact] in long


USAGE = {
    "method": (["run", "--method", "imitat", "--task", "chexpert"], "Did you mean 'imitate'? Available: "),
    "task": (["run", "--method", "imitate", "--task", "chexprt"], "Did you mean 'chexpert'? Available: "),
    "kind": (
        ["run", "--method", "imitate", "--task", "chexpert:linaer"],
        "Did you mean 'linear'? Available: ",
    ),
    "fraction": (["run", "--method", "imitate", "--task", "chexpert", "--fraction", "1.5"], "fraction"),
    "profile": (["run", "--method", "imitate", "--task", "chexpert", "--profile", "dem"], "'demo'"),
    "protocol": (["run", "--method", "imitate", "--task", "chexpert", "--protocol", "clen"], "'clean'"),
    "checkpoint": (
        ["run", "--method", "imitate", "--task", "chexpert", "--checkpoint", "imitate-demo"],
        "unknown checkpoint 'imitate-demo'. Available: none",
    ),
    "file": (["run", "--method", "nowhere.py", "--task", "chexpert"], "there is no file"),
    "kind of a corpus": (["run", "--method", "imitate", "--task", "mimic_cxr:linear"], "mimic_cxr:retrieval"),
    "seed": (["run", "--method", "imitate", "--task", "chexpert", "--seed", "-1"], "--seed"),
    "missing option": (["run", "--method", "imitate"], "--task"),
    "corpus": (["pretrain", "--method", "imitate", "--corpus", "mimic"], "Did you mean 'mimic_cxr'?"),
    "no reports": (["pretrain", "--method", "imitate", "--corpus", "chexpert"], "no reports"),
    "size of all": (["pretrain", "--method", "all", "--profile", "papr"], "Did you mean 'paper'?"),
    "corpus of all": (["pretrain", "--method", "all", "--corpus", "mimic"], "Did you mean 'mimic_cxr'?"),
    "nothing to train": (["pretrain", "--method", "random_init"], "random_init is not trained"),
    "phantom": (["data", "phantom", "chexprt", "--root", "new"], "Did you mean 'chexpert'?"),
    "dial": (["data", "phantom", "rsna", "--root", "new", "--confound"], "has no dial --confound"),
    "doctor": (["data", "doctor", "chexprt"], "Did you mean 'chexpert'?"),
    "prepare": (["data", "prepare", "chexpert", "--method", "imitat"], "Did you mean 'imitate'?"),
    "verb": (["rum"], "rum"),
    "empty size": (["run", "--method", "imitate", "--task", "chexpert", "--profile", ""], "unknown profile"),
    "empty size of a sweep": (["sweep", "--methods", "imitate", "--profile", ""], "unknown profile"),
    "tasks": (["sweep", "--tasks", ""], "--tasks is empty. Name some, or leave it out"),
    "methods": (["sweep", "--methods", " , "], "--methods is empty"),
    "checkpoints": (["sweep", "--checkpoints", ""], "--checkpoints is empty"),
    "root": (["sweep", "--tasks", "rsna", "--data-root", "/nowhere"], "root /nowhere is not a folder"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE)
def test_a_wrong_command_ends_with_2_and_says_what_was_meant(
    arguments: Sequence[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


@pytest.mark.slow
def test_every_wrong_command_is_refused_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys\nfrom harness.cli.app import main\n"
        f"for arguments in {[arguments for arguments, _ in USAGE.values()]!r}:\n"
        "    sys.argv = ['harness', *arguments]\n"
        "    try:\n        main()\n"
        "    except SystemExit as ended:\n        assert ended.code == 2, arguments\n"
        f"    assert not {HEAVY} & set(sys.modules), arguments\n"
        "print('all refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "all refused\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("HARNESS_WORKERS", "many"), ("HARNESS_BANK_DTYPE", "int4")])
def test_a_setting_that_cannot_be_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert f"{name} is '{value}'" in harness("list", "checkpoints", code=2).stderr


@pytest.mark.slow
def test_a_missing_dataset_ends_with_1_and_the_cure(tmp_path: Path) -> None:
    done = harness("run", "--method", "imitate", "--task", "chexpert", "--data-root", str(tmp_path), code=1)
    assert done.stderr.startswith("error: no CheXpert")
    assert str(tmp_path) in done.stderr
    assert done.stdout == ""


def test_an_error_that_nobody_foresaw_ends_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "list", "checkpoints"])
    monkeypatch.setattr(settings, "load", lambda *_: random.choice([]))  # raised inside a library
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: IndexError: ") and f"({__file__}, line " in last
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(("value", "shown"), [(0.123, "0.12"), (99.6, "100"), (5400.0, "5400"), (None, "?")])
def test_estimates_are_not_written_in_powers_of_ten(value: float | None, shown: str) -> None:
    assert sweep._number(value) == shown


@pytest.mark.slow
def test_the_leaderboard_of_a_folder_is_written_checked_and_found_stale(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    harness("leaderboard", "--results", str(tmp_path))
    harness("leaderboard", "--results", str(tmp_path), "--check")
    fakes.write(tmp_path, seed=1)
    stale = harness("leaderboard", "--results", str(tmp_path), "--check", code=1)
    assert "(2 runs)" in stale.stdout
    assert "Rebuild it: python -m harness leaderboard" in stale.stderr


@pytest.mark.slow
def test_list_results_prints_whole_records(tmp_path: Path) -> None:
    path = fakes.write(tmp_path, fraction=0.1)
    [shown] = json.loads(harness("list", "results", "--results", str(tmp_path), "--json").stdout)
    assert shown == json.loads(path.read_text())
    assert "chexpert:linear" in harness("list", "results", "--results", str(tmp_path)).stdout
    nowhere = str(tmp_path / "nowhere")
    assert f"there is no folder {nowhere}" in harness("list", "results", "--results", nowhere, code=2).stderr
