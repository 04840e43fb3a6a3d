"""Cells that were tried in vain stand on the page with their reason, until they are done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness import failures, leaderboard, plan
from harness.errors import EmptyClass
from harness.settings import load
from tests import fakes
from tests.harness.leaderboard.pages import section_of


def test_what_failed_stands_with_its_reason(tmp_path: Path) -> None:
    for method in ("gloria", "imitate"):
        for seed in (0, 1):
            cell = plan.cell(
                method, "rsna:linear", profile="demo", protocol="clean", fraction=0.01, seed=seed
            )
            tried = failures.Tried("phantom", cell, "gloria-x-s0" if method == "gloria" else "", "demo")
            failures.write(load(results=tmp_path), tried, EmptyClass("no <sign>"))
    found = section_of(leaderboard.build(tmp_path), "Failed")
    place = "phantom, rsna:linear clean at 1 % (gloria-x-s0, imitate; seeds 0, 1)"
    assert found.strip() == f"- {place}: EmptyClass: no &lt;sign&gt;"

    def done(method: str, checkpoint: int) -> str:
        for seed in (0, 1):
            cell: dict[str, Any] = {"task": "rsna:linear", "seed": seed, "checkpoint": checkpoint}
            fakes.write(tmp_path, method=method, family=f"{method}-x", **cell)
        return leaderboard.build(tmp_path)

    assert "(gloria-x-s0; seeds 0, 1)" in done("imitate", 3)  # it has a checkpoint since
    assert "(gloria-x-s0; seeds 0, 1)" in done("gloria", 1)  # another one than that which failed
    assert "## Failed" not in done("gloria", 0)


def test_what_failed_on_a_lent_checkpoint_is_done_with_its_own(tmp_path: Path) -> None:
    cell = plan.cell("gloria", "rsna:linear", profile="demo", protocol="clean", fraction=0.01, seed=1)
    for lent in (False, True):
        tried = failures.Tried("phantom", cell, "gloria-x-s0", "demo", lent)
        failures.write(load(results=tmp_path), tried, EmptyClass("no sign"))
        assert "(gloria-x-s0; seeds 1)" in leaderboard.build(tmp_path)
        fakes.write(tmp_path, method="gloria", family="gloria-x", task="rsna:linear", seed=1)
        assert ("## Failed" in leaderboard.build(tmp_path)) != lent
        shutil.rmtree(tmp_path / "phantom")


def test_checkpoints_of_one_family_are_told_together(tmp_path: Path) -> None:
    for seed in (10, 9, 0):
        cell = plan.cell("gloria", "rsna:linear", profile="demo", protocol="clean", fraction=0.01, seed=seed)
        tried = failures.Tried("phantom", cell, f"gloria-x-s{seed}", "demo")
        failures.write(load(results=tmp_path), tried, EmptyClass("no sign"))
    assert "at 1 % (gloria-x-s0/9/10; seeds 0, 9, 10): EmptyClass" in leaderboard.build(tmp_path)


def test_what_failed_without_labels_is_not_said_to_have_used_them(tmp_path: Path) -> None:
    cell = plan.cell("imitate", "rsna:zero-shot", profile="demo", protocol="clean", fraction=1.0, seed=0)
    tried = failures.Tried("phantom", cell, "", "demo")
    failures.write(load(results=tmp_path), tried, EmptyClass("no sign"))
    assert "- phantom, rsna:zero-shot clean (imitate; seeds 0)" in leaderboard.build(tmp_path)
