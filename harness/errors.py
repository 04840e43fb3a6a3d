"""Every error a user can cause or cure. Each message names the thing, the place and the cure.

HarnessError
├── UsageError              exit 2: a name, option or pairing that cannot be
│   ├── UnknownName             no such method, task, kind, checkpoint
│   └── ImpossiblePairing       method and task do not go together
├── DataError               exit 1: what lies on the disk is not what was expected
│   ├── MissingDataset          no folder with the dataset's files under the data root
│   ├── BadTable                a header, row or value that the format does not allow
│   ├── UnreadableImage         a picture that cannot be decoded
│   └── EmptyClass              a label with one class only where two are needed
├── CorruptCache            exit 1: a cached file that does not match its index
├── CheckpointError         exit 1: weights that are missing, broken or belong to something else
├── TrainingDiverged        exit 1: the loss became NaN or infinite, or a probe found no optimum
├── ProcessDied             exit 1: what a process did when it was ended, mostly for want of memory
└── BadRecord               exit 1: a result that breaks the schema, or a stale leaderboard
    └── NewerRecord             one that a later harness wrote
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

SHOWN = 3  # of many, in a message
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's, of models and of dataclasses


def few(items: Sequence[object], between: str = ", ", shown: int = SHOWN) -> str:
    """The first of them, for a message, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return between.join(map(str, items[:shown])) + more


def readable_size(count: float) -> str:
    """Bytes as one reads them: `5.1 kB`, `3.4 MB`, `24.7 GB`."""
    scale, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / scale:.1f} {unit}"


def first_of(error: ValidationError) -> str:
    """What is wrong with a file, and in which field of it."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


def of_another_version(error: ValidationError, model: type[BaseModel]) -> str:
    """Says so where nothing else is wrong with a file of this `model` than fields that are not known here, or
    where its schema_version is higher; "" where it is broken."""
    wrong = error.errors(include_url=False)
    [known] = get_args(model.model_fields["schema_version"].annotation)
    found = [each["input"] for each in wrong if each["loc"] == ("schema_version",)]
    unknown = [each["loc"] for each in wrong if each["type"] in UNKNOWN]
    if any(isinstance(number, int) and number > known for number in found):
        names = ["schema_version"]  # what else is wrong with it may be new too
    elif len(unknown) == len(wrong):
        names = [".".join(map(str, place)) for place in unknown]
    else:
        return ""
    return f"{few(names)}: of another version of the harness, likely a newer one. Update this one (git pull)"


class HarnessError(Exception):
    """The user can do something about it: printed without a traceback."""

    exit_code = 1


class UsageError(HarnessError):
    exit_code = 2


class UnknownName(UsageError):
    """`UnknownName("method", "imitat", known)` says what was meant and what there is. `cure`: where one could
    come from."""

    def __init__(self, noun: str, name: str, known: Iterable[str], cure: str = "") -> None:
        names = sorted(known)
        self._parts = noun, name, names, cure
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        more = f". {cure}" if cure else ""
        super().__init__(f"unknown {noun} {name!r}.{hint} Available: {', '.join(names) or 'none'}{more}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._parts  # errors of worker processes arrive pickled


class ImpossiblePairing(UsageError):
    pass


class DataError(HarnessError):
    pass


class MissingDataset(DataError):
    """`begun`: what of it is there, and what that lacks."""

    def __init__(self, message: str, begun: str = "") -> None:
        super().__init__(message)
        self.begun = begun


class BadTable(DataError):
    pass


class UnreadableImage(DataError):
    pass


class EmptyClass(DataError):
    pass


class CorruptCache(HarnessError):
    pass


class CheckpointError(HarnessError):
    pass


class TrainingDiverged(HarnessError):
    pass


class ProcessDied(HarnessError):
    pass


class BadRecord(HarnessError):
    pass


class NewerRecord(BadRecord):
    pass
