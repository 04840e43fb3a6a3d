"""Reads a pickle as data: tensors, plain containers and nothing else. A pickle module for `torch.load`.

Apart because a pickle is a program. The standard library's reader can be kept from finding what a file names,
yet it calls what it finds and sets attributes of it. This one looks nothing up: what a file names stays a
name, objects of classes are read as empty, and a call is refused unless it stands in one of two lists.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor


class Name(str):
    """What a pickle names, `module.name`. Nothing was looked up."""


class Unknown:
    """Stands for an object of which nothing was kept."""


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """torch checks that the tensor stays within its storage."""
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


ANSWERED: Mapping[str, Callable[..., object]] = {
    "builtins.set": set,
    "collections.OrderedDict": dict,
    "collections.defaultdict": lambda *_: {},
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}
"""Calls, and what is called instead."""

UNANSWERED = frozenset(
    {
        *("_codecs.encode", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device", "numpy.dtype"),
        *("numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),
        *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct"),
    }
)
"""Calls whose result is not needed: they make the numbers and paths that trainers keep beside the weights."""

FRESH: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
CONSTANTS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
"""Instructions that push their argument."""


class Unpickler:
    """What `torch.load` asks of a pickle module; it sets `persistent_load`, which reads a storage.

    Raises UnpicklingError for what a file may not do; a malformed one may cause any error.
    """

    persistent_load: Callable[[object], object]

    def __init__(self, file: BinaryIO, **_: object) -> None:
        self.file = file

    def find_class(self, module: str, name: str) -> object:
        """torch overrides this for the types of its storages."""
        return Name(f"{'builtins' if module == '__builtin__' else module}.{name}")

    def load(self) -> Any:
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def taken(start: int) -> list[Any]:
            items = stack[start:]
            del stack[start:]
            return items

        operations: Iterator[tuple[Any, Any, Any]] = pickletools.genops(self.file)
        for opcode, argument, _ in operations:
            match opcode.name:
                case constant if constant in CONSTANTS:
                    stack.append(argument)
                case fresh if fresh in FRESH:
                    stack.append(FRESH[fresh]())
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(taken(marks.pop())))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(taken(-int(opcode.name[-1]))))
                case "APPEND":
                    _extend(stack, taken(-1))
                case "SETITEM":
                    _extend(stack, taken(-2))
                case "APPENDS" | "SETITEMS" | "ADDITEMS":
                    _extend(stack, taken(marks.pop()))
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(self.find_class(*argument.split(" ", 1)))
                case "STACK_GLOBAL":
                    stack.append(self.find_class(*taken(-2)))
                case "NEWOBJ":
                    stack[-2:] = [Unknown()]
                case "BUILD":  # attributes, which are not kept
                    stack.pop()
                case "REDUCE":
                    stack.append(_called(*taken(-2)))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case other:
                    raise UnpicklingError(f"it holds the instruction {other}, which no file of weights needs")
        raise UnpicklingError("it does not end")

    def _storage(self, wanted: object) -> object:
        if isinstance(wanted, tuple) and wanted[:1] == ("storage",):
            return self.persistent_load(wanted)
        raise UnpicklingError("it refers to something outside of it that is no tensor's storage")


def load(file: BinaryIO, **options: object) -> Any:
    return Unpickler(file, **options).load()


def _extend(stack: list[Any], items: list[Any]) -> None:
    """Adds `items` to the container on top of the stack; keys and values take turns."""
    match stack[-1]:
        case list() as sequence:
            sequence.extend(items)
        case set() as members:
            members.update(items)
        case dict() as mapping:
            mapping.update(zip(items[::2], items[1::2], strict=True))
        case Unknown():
            pass
        case other:
            raise UnpicklingError(f"it adds items to a {type(other).__name__}")


def _called(function: object, arguments: Any) -> object:
    if isinstance(function, Name) and function in ANSWERED:
        return ANSWERED[function](*arguments)
    if isinstance(function, Name) and function in UNANSWERED:
        return Unknown()
    raise UnpicklingError(f"it calls {function if isinstance(function, Name) else type(function).__name__}")
