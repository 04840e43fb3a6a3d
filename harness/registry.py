"""What methods and datasets there are: a file in `methods/` or `tasks/` is one by existing, under its name.

Apart because the command line must list, check and refuse names in milliseconds: a card is read from the
file's syntax tree, so that neither torch nor pandas is imported until there is work for them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from harness import contracts
from harness.contracts import DatasetCard, Kind, MethodCard, Task
from harness.errors import HarnessError, ImpossiblePairing, UnknownName, UsageError
from harness.settings import PACKAGE_ROOT

Group = Literal["methods", "tasks"]

NOUN: Mapping[Group, str] = {"methods": "method", "tasks": "dataset"}
CARD_TYPE: Mapping[Group, type[MethodCard] | type[DatasetCard]] = {
    "methods": MethodCard,
    "tasks": DatasetCard,
}
FUNCTIONS: Mapping[Group, tuple[str, ...]] = {"methods": ("build",), "tasks": ("read", "write_phantom")}
BLOCKS: Mapping[str, Any] = {
    name: block
    for name, block in vars(contracts).items()
    if is_dataclass(block) and block is not contracts.Layout
}
"""What a card may be built of, beside literals and names of literals in the same file."""


@dataclass(frozen=True)
class Entry:
    """One file of a group. `error` is set for a plug-in that cannot be used, and says why."""

    name: str
    path: Path
    module: str | None  # importable name; None: loaded from the path
    card: MethodCard | DatasetCard | None = None
    error: str = ""

    @property
    def source(self) -> str:
        """What `entry` finds it by, from whichever folder a process stands in."""
        return self.name if self.module else str(self.path)


def entries(group: Group) -> dict[str, Entry]:
    """All files of a group: our own, sorted by name, then entry points; a broken one carries its reason."""
    own = _own(group)
    foreign: dict[str, Entry] = {}
    for point in sorted(entry_points(group=f"harness.{group}")):
        if taken := own.get(point.name) or foreign.get(point.name):
            problem = f"the name is taken by {taken.path}; rename the entry point in its package"
            foreign[f"{point.name} ({point.value})"] = Entry(point.name, Path(), None, error=problem)
            continue
        foreign[point.name] = _from_entry_point(point.name, point.value)
    return {name: _with_card(group, entry) for name, entry in (own | foreign).items()}


def entry(group: Group, name: str) -> Entry:
    """The usable entry behind a name, or behind the path of a file (`--method path/to/file.py`).

    Raises UnknownName with the nearest name, UsageError with the reason when the file is no such thing.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"there is no file {path}. Give the path of a {NOUN[group]}'s file, or its name")
        ours = _own(group).get(path.stem)
        if ours and ours.path.resolve() != path:  # its records and phantoms would be taken for ours
            raise UsageError(f"{path}: the name {path.stem!r} is taken by {ours.path}. Rename the file")
        found = _with_card(group, Entry(path.stem, path, None))
    elif name in (own := _own(group)):
        found = _with_card(group, own[name])  # without a look at the others: a sweep asks a thousand times
    else:
        known = entries(group)
        if name not in known:
            raise UnknownName(NOUN[group], name, (key for key, item in known.items() if not item.error))
        found = known[name]
    if found.error:
        raise UsageError(f"{NOUN[group]} {name!r} cannot be used: {found.error}")
    return found


def method_card(name: str) -> MethodCard:
    card = entry("methods", name).card
    assert isinstance(card, MethodCard)
    return card


def dataset_card(name: str) -> DatasetCard:
    card = entry("tasks", name).card
    assert isinstance(card, DatasetCard)
    return card


def load(group: Group, name: str) -> ModuleType:
    """Imports one file and checks its contract. Raises UsageError naming what is missing."""
    found = entry(group, name)
    try:
        module = _import(found)
    except HarnessError:
        raise
    except Exception as error:  # a plug-in may fail in any way; the reason is passed on
        raise UsageError(f"{found.path} cannot be imported: {type(error).__name__}: {error}") from error
    missing = [function for function in FUNCTIONS[group] if not callable(getattr(module, function, None))]
    if missing:
        raise UsageError(
            f"{found.path} has no function {missing[0]}(). A {NOUN[group]}'s file needs CARD and "
            f"{', '.join(f'{function}()' for function in FUNCTIONS[group])}; see CONTRIBUTING.md"
        )
    return module


# --- tasks and pairings ----------------------------------------------------------------------------


class FoundTask(NamedTuple):
    id: str
    source: str  # of its dataset, as of Entry
    dataset: str
    kind: Kind
    task: Task


def task_of(text: str) -> FoundTask:
    """What `chexpert` (its dataset's default kind) or `rsna:detection` means."""
    dataset, _, wanted = text.partition(":")
    card, found = dataset_card(dataset), entry("tasks", dataset)
    name = found.name
    if not card.tasks:
        raise ImpossiblePairing(
            f"{name} is a corpus to pre-train on, not a task: python -m harness pretrain --method METHOD "
            f"--corpus {name}"
        )
    wanted = wanted or next(iter(card.by_name))
    if wanted in card.by_name:
        return FoundTask(f"{name}:{wanted}", found.source, name, *card.by_name[wanted])
    if wanted not in get_args(Kind):
        raise UnknownName("kind", wanted, {*get_args(Kind), *card.by_name})
    ids = ", ".join(f"{name}:{offered}" for offered in card.by_name)
    raise ImpossiblePairing(f"{name} has no task of kind {wanted!r}. It offers {ids}")


def check_pairing(name: str, has_text: bool, task_id: str, kind: Kind) -> None:
    """Refuses a method or a checkpoint without words where the kind compares pictures with words."""
    if kind in contracts.NEEDS_TEXT and not has_text:
        able = [key for key, item in entries("methods").items() if getattr(item.card, "has_text", False)]
        raise ImpossiblePairing(
            f"{task_id} compares pictures with words, and {name} has no text encoder. "
            f"Methods that have one: {', '.join(able)}"
        )


# --- reading a card without running its file ---------------------------------------------------------


def read_card(path: Path) -> Any:
    """The value of `CARD` in a file, from its syntax tree. Raises ValueError naming the line."""
    return _card_in(path.read_text(encoding="utf-8"), path)


@cache
def _card_in(text: str, path: Path) -> Any:
    tree = ast.parse(text, filename=str(path))
    constants: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            constants[node.target.id] = node.value
    if "CARD" not in constants:
        raise ValueError("it has no CARD; see CONTRIBUTING.md, and docs/ for whole files")
    return _value(constants["CARD"], constants)


def _value(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Tuple() | ast.List():
            return tuple(_value(item, constants) for item in node.elts)
        case ast.Dict() if None not in node.keys:
            pairs = zip(node.keys, node.values, strict=True)
            return {_value(key, constants): _value(item, constants) for key, item in pairs if key}
        case ast.Name() if node.id in constants:
            return _value(constants[node.id], constants)
        case ast.Call(func=ast.Name(id=name)) if name in BLOCKS:
            arguments = [_value(item, constants) for item in node.args]
            named = {item.arg or "**": _value(item.value, constants) for item in node.keywords}
            try:
                block = BLOCKS[name](*arguments, **named)
            except TypeError as error:
                raise ValueError(f"line {node.lineno}: {error}") from error
            for field, hint in _hints(name).items():
                if not _fits(getattr(block, field), hint):
                    wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
                    raise ValueError(
                        f"line {node.lineno}: {name}.{field} is {getattr(block, field)!r}, not {wanted}"
                    )
            return block
    blocks = ", ".join(sorted(BLOCKS))
    raise ValueError(
        f"line {node.lineno}: a card holds literals and {blocks} only, not {ast.unparse(node)!r}"
    )


@cache
def _hints(block: str) -> dict[str, Any]:
    return get_type_hints(BLOCKS[block])


def _fits(value: object, hint: Any) -> bool:
    """Whether a card's value is what its field is annotated with, so that a misspelt kind is caught here."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, item) for item in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items()
        )
    return isinstance(value, (int, float) if hint is float else hint)


def _own(group: Group) -> dict[str, Entry]:
    """The files of this repository, without their cards."""
    files = sorted((PACKAGE_ROOT / group).glob("[!_]*.py"))
    return {path.stem: Entry(path.stem, path, f"{group}.{path.stem}") for path in files}


def _with_card(group: Group, found: Entry) -> Entry:
    if found.error:
        return found
    try:
        card = read_card(found.path)
    except (ValueError, TypeError, SyntaxError, RecursionError, OSError) as error:
        return replace(found, error=f"{found.path}: {error}")
    if not isinstance(card, CARD_TYPE[group]):
        return replace(found, error=f"{found.path}: CARD is not a {CARD_TYPE[group].__name__}")
    if isinstance(card, DatasetCard) and not all("clean" in task.splits for task in card.tasks):
        return replace(found, error=f"{found.path}: a task's splits lack the clean protocol")
    if isinstance(card, DatasetCard):
        for kind, metric in ((kind, task.metric) for task in card.tasks for kind in task.kinds):
            if metric not in contracts.METRICS[kind]:
                offered = ", ".join(contracts.METRICS[kind])
                reason = f"a task of kind {kind} has the metric {metric!r}, not one of {offered}"
                return replace(found, error=f"{found.path}: {reason}")
    return replace(found, card=card)


def _from_entry_point(name: str, module: str) -> Entry:
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # noqa: BLE001 - finding a submodule imports its package, which may fail in any way
        return Entry(name, Path(), None, error=f"{module} cannot be imported: {error}")
    if spec is None or not spec.origin:
        return Entry(name, Path(), None, error=f"no module {module}; is its package still installed?")
    return Entry(name, Path(spec.origin), module)


def _import(found: Entry) -> ModuleType:
    if found.module:
        return importlib.import_module(found.module)
    name = f"harness_plugin_{found.name}"
    known = sys.modules.get(name)
    if known and known.__file__ == str(found.path):  # what is edited later does not run in this process
        return known
    spec = importlib.util.spec_from_file_location(name, found.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
