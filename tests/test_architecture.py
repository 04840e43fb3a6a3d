"""Which file may import which: the plan of the house as a table, enforced over every syntax tree.

Read `ARROWS` from top to bottom: a row may import what stands on its right, and nothing else of ours.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("harness", "methods", "tasks")

TOOLS = "contracts errors files memo parallel progress settings"

# file: what it may import of ours. Names are those below `harness`, unless they begin with methods or tasks;
# `room.*` is a package and everything in it. The first row that fits a file counts.
ARROWS: Mapping[str, str] = {
    # words and tools
    "contracts": "",
    "errors": "",
    "files": "errors",
    "memo": "errors",
    "progress": "",
    "parallel": "progress errors",
    "settings": "parallel errors",
    "device": "provenance errors",
    "provenance": "settings",
    "cost": "",
    "registry": "contracts errors settings",
    # numbers
    "metrics.*": "metrics.* contracts errors",
    "stats": "metrics.* errors",
    "comparison": "stats errors",
    "records": "contracts errors files",
    "grouping": "records errors",
    "identity": "records",
    "quarantine": "",
    # rooms: none of them knows a cell, or a method or dataset by name
    "phantom.*": f"phantom.* {TOOLS}",
    "data.*": f"data.* phantom.* {TOOLS}",
    "pretrain.make": f"plan pretrain.* data.* registry provenance device {TOOLS}",  # where its parts meet
    "pretrain.*": f"pretrain.* data.* registry provenance device {TOOLS}",
    "evaluate.*": f"evaluate.* data.* metrics.* records cost device {TOOLS}",
    # one cell, many cells
    "plan": "registry contracts errors",
    "account": f"plan registry pretrain.checkpoint data.* stats records cost provenance device {TOOLS}",
    "prepare": f"plan pretrain.corpus data.* {TOOLS}",
    "weights": f"plan pretrain.* evaluate.bank registry {TOOLS}",
    "run": "weights plan account pretrain.* evaluate.* data.* metrics.* stats records identity quarantine "
    f"cost registry device {TOOLS}",
    "failures": "plan records contracts errors files settings",
    "grid": f"plan registry {TOOLS}",
    "jobs": "run account weights grid failures plan registry pretrain.checkpoint data.* records identity "
    f"quarantine {TOOLS}",
    "matrix": f"jobs failures grid weights plan pretrain.checkpoint data.locate records {TOOLS}",
    "searches": f"jobs run account weights evaluate.search records {TOOLS}",
    "trial": "run jobs failures parallel settings",
    "tuning": f"trial searches run jobs account evaluate.search cost {TOOLS}",
    "cluster": "settings errors",
    "sweep": "cluster trial tuning run weights jobs grid failures plan account pretrain.checkpoint cost "
    f"{TOOLS}",
    # records to pages, to answers and to other machines
    "leaderboard": "leaderboard.page",
    "leaderboard.*": "leaderboard.* failures grouping records stats comparison metrics.* contracts errors "
    "files parallel progress",
    "differences": "failures quarantine grouping records comparison stats metrics.* contracts errors files "
    "progress",
    "bundle": "differences provenance grouping records metrics.* errors files",
    # the command line is the top: nothing may use it
    "cli.show": "account errors",
    "cli.app": "cli.* errors",
    "cli.*": "cli.show sweep matrix jobs grid failures run prepare plan leaderboard differences bundle "
    f"pretrain.* data.* phantom.* registry records {TOOLS}",
    "__main__": "cli.app",
    # plug-ins know the words, and what they share among themselves
    "methods.*": "methods._* contracts errors files",
    "tasks.*": "tasks._* phantom.* contracts errors files parallel",
}

TYPES_ONLY: Mapping[tuple[str, str], str] = {
    ("contracts", "phantom"): "Dataset.write_phantom names the cohort it draws",
}
"""Arrows for the type checker alone, against the table, each with its reason."""

OWNERS: Mapping[str, str] = {
    "ray.tune": "sweep tuning trial",  # how cells and trials are scheduled is their secret
    "ray.train": "pretrain.distributed",  # so is how processes are started
    "ray": "cluster sweep tuning trial pretrain.distributed",
    "typer": "cli.*",  # the engine is a library: it parses no arguments
}
"""Packages that only these files may import."""

LIGHT = "contracts errors files settings progress registry plan cli.* __main__"
HEAVY = frozenset({"torch", "torchvision", "timm", "transformers", "ray", "pandas", "sklearn", "scipy"})
"""No light file imports a heavy package, or a file of ours that does, before there is work for it."""

LONGEST = 400  # lines of a file that still fits in a head


class Import(NamedTuple):
    target: str  # module of ours, or dotted name of a package
    line: int
    types_only: bool  # under `if TYPE_CHECKING`
    at_start: bool  # runs when the file is imported


# --- the checker -----------------------------------------------------------------------------------


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name -> file, for every Python file in the rooms."""
    found = {}
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: Mapping[str, Path]) -> list[Import]:
    """All imports of a file, wherever they stand. Relative ones keep their dots and so never fit a row."""
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), known, types_only=False, at_start=True))


def _walk(node: ast.AST, known: Mapping[str, Path], *, types_only: bool, at_start: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        names: list[str] = []
        if isinstance(child, ast.Import):
            names = [item.name for item in child.names]
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            whole = [f"{source}.{item.name}" for item in child.names]
            # `from harness import stats` is the module stats; `from harness.stats import x` is a name in it
            ours = source.split(".")[0] in ROOMS
            names = [item if item in known or not ours else source for item in whole]
        for name in dict.fromkeys(names):
            yield Import(name, child.lineno, types_only or guarded, at_start and not (types_only or guarded))
        yield from _walk(
            child, known, types_only=types_only or guarded, at_start=at_start and not (later or guarded)
        )


def short(module: str) -> str:
    """The name a module has in the tables."""
    return module.removeprefix("harness.") if module != "harness" else "__init__"


def fits(module: str, patterns: str) -> bool:
    name = short(module)
    return any(fnmatchcase(name, item) or item == f"{name}.*" for item in patterns.split())


def violations(root: Path) -> list[str]:
    """Everything under `root` that breaks a rule of this file, as sentences."""
    known = modules_of(root)
    imports = {module: imports_of(path, known) for module, path in known.items()}
    return [
        *_misplaced(known, root),
        *_forbidden_arrows(imports),
        *_foreign_packages(imports),
        *_heavy_starts(imports),
        *_circles(imports),
    ]


def _misplaced(known: Mapping[str, Path], root: Path) -> Iterator[str]:
    for module, path in known.items():
        place = path.relative_to(root)
        if module not in ROOMS and not any(fits(module, row) for row in ARROWS):
            yield f"{place} has no row in ARROWS: decide what it may import"
        if not (path.parent / "__init__.py").exists():
            yield f"{place} lies in a folder without __init__.py: it would be missing from an installation"


def _forbidden_arrows(imports: Mapping[str, list[Import]]) -> Iterator[str]:
    for module, found in imports.items():
        allowed = next((right for row, right in ARROWS.items() if fits(module, row)), "")
        for item in found:
            if item.target.startswith("."):
                yield f"{module}:{item.line} imports {item.target} relatively; write the whole name"
            elif item.target.split(".")[0] in ROOMS and not fits(item.target, allowed):
                if not (item.types_only and (short(module), short(item.target)) in TYPES_ONLY):
                    yield f"{module}:{item.line} imports {item.target}: its row allows {allowed or 'nothing'}"


def _foreign_packages(imports: Mapping[str, list[Import]]) -> Iterator[str]:
    for module, found in imports.items():
        for item in found:
            package = next((name for name in OWNERS if f"{item.target}.".startswith(f"{name}.")), "")
            if package and not fits(module, OWNERS[package]):
                yield f"{module}:{item.line} imports {item.target}: only {OWNERS[package]} may"


def _heavy_starts(imports: Mapping[str, list[Import]]) -> Iterator[str]:
    for light in (module for module in imports if fits(module, LIGHT)):
        waiting, seen = [light], {light}
        while waiting:
            module = waiting.pop()
            for item in (item for item in imports[module] if item.at_start):
                if item.target.split(".")[0] in HEAVY:
                    yield f"{module}:{item.line} imports {item.target} when it starts: {light} is not light"
                elif item.target in imports and item.target not in seen:
                    seen.add(item.target)
                    waiting.append(item.target)


def _circles(imports: Mapping[str, list[Import]]) -> Iterator[str]:
    """Depth-first search; an import inside a function or for types only closes a circle all the same."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> Iterator[str]:
        if module in trail:
            yield "circle: " + " -> ".join((*trail[trail.index(module) :], module))
        elif module not in done:
            for target in sorted({item.target for item in imports[module]} & imports.keys()):
                yield from visit(target, (*trail, module))
            done.add(module)

    for module in imports:
        yield from visit(module, ())


# --- the house keeps the rules -----------------------------------------------------------------------


def test_every_import_follows_the_table() -> None:
    assert violations(ROOT) == []


def test_the_engine_names_no_method_and_no_dataset() -> None:
    known = modules_of(ROOT)
    plugins = {
        f"{module}:{item.line} {item.target}"
        for module, path in known.items()
        if module.startswith("harness")
        for item in imports_of(path, known)
        if item.target.split(".")[0] in ("methods", "tasks")
    }
    assert not plugins, "the registry loads methods and datasets by file name"


def test_no_file_is_too_long() -> None:
    files = [path for folder in (*ROOMS, "tests") for path in (ROOT / folder).rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LONGEST
    }
    assert not long, "split the file along its duties"


# --- the checker sees what it must -------------------------------------------------------------------


PLANTED = {
    "engine imports a method": ("harness/run.py", "import methods.imitate", "imports methods.imitate"),
    "inside a function": ("harness/stats.py", "def f():\n    from harness import run", "imports harness.run"),
    "for types, unlisted": (
        "harness/provenance.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.run import Cell",
        "imports harness.run",
    ),
    "method imports another": ("methods/imitate.py", "from methods import other", "imports methods.other"),
    "method imports a dataset": ("methods/imitate.py", "import tasks.chexpert", "imports tasks.chexpert"),
    "relative": ("harness/cli/run.py", "from . import show", "relatively"),
    "unplaced file": ("harness/helpers.py", "", "has no row"),
    "unpackaged folder": ("harness/data/deep/x.py", "", "without __init__.py"),
    "ray outside the sweep": ("harness/run.py", "from ray import tune", "only sweep tuning trial may"),
    "ray in evaluation": (
        "harness/evaluate/linear.py",
        "import ray",
        "only cluster sweep tuning trial pretrain.distributed may",
    ),
    "heavy at the start": ("harness/contracts.py", "import pandas as pd", "contracts is not light"),
    "heavy in a try": (
        "harness/files.py",
        "try:\n    import torch.nn\nexcept ImportError: ...",
        "files is not light",
    ),
    "heavy through another": (
        "harness/cli/data.py",
        "import harness.data.locate",
        "harness.data.locate:1 imports pandas when it starts: harness.cli.data is not light",
    ),
    "circle": ("harness/data/locate.py", "import harness.data.cache", "circle: harness.data."),
}


@pytest.mark.parametrize(("place", "source", "message"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, place: str, source: str, message: str) -> None:
    sound = {
        "harness/run.py": "from harness import plan",
        "harness/stats.py": "from harness.errors import EmptyClass",
        "harness/provenance.py": "import numpy",
        "harness/contracts.py": "if typing.TYPE_CHECKING:\n    import harness.phantom",
        "harness/plan.py": "from harness.errors import UsageError",
        "harness/errors.py": "",
        "harness/cli/data.py": "def where():\n    import harness.data.locate",
        "harness/data/locate.py": "import pandas",
        "harness/data/cache.py": "from harness.data import locate",
        "harness/cli/run.py": "import typer\ndef run():\n    from harness import run",
        "methods/_text.py": "import torch",
        "methods/imitate.py": "from methods import _text\nfrom harness.contracts import Batch",
        "methods/other.py": "",
        "tasks/chexpert.py": "import pandas\nfrom harness.phantom import Cohort",
        **{
            f"{folder}/__init__.py": ""
            for folder in (*ROOMS, "harness/data", "harness/cli", "harness/phantom")
        },
        "harness/evaluate/__init__.py": "",
    }
    _write(tmp_path, sound)
    assert violations(tmp_path) == []
    _write(tmp_path, {place: source})
    assert any(message in sentence for sentence in violations(tmp_path))


def _write(root: Path, files: Mapping[str, str]) -> None:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source, encoding="utf-8")
