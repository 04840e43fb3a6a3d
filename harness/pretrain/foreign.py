"""Files with weights that others have written, read as data: nothing in them is run.

Apart from recognising them, because this is where a file is not trusted.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import CheckpointError, few
from harness.pretrain import unpickle

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where a file that holds more than weights keeps them."""

PAGE = "a web page, such as a warning before a download: open its address in a browser"
INSTEAD = {
    b"<!doctype": PAGE,
    b"<html": PAGE,
    b"<?xml": PAGE,
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull where it is from",
}
"""What downloads leave in the place of weights, by its first bytes."""

SHOWN = 5  # keys of a file in a message


def weights_of(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file of torch.save or safetensors, wherever in it they are. Runs nothing of it.

    Raises CheckpointError.
    """
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    for beginning, what in INSTEAD.items():
        if head.startswith(beginning):
            raise CheckpointError(f"{path} is {what}")
    content = _content(path)
    top = content if isinstance(content, dict) else {}
    for found in (top, *(top.get(name) for name in WRAPPERS)):
        if isinstance(found, dict) and found and all(map(_is_weight, found.items())):
            parallel = all(key.startswith("module.") for key in found)  # saved from within DataParallel
            return {key.removeprefix("module.") if parallel else key: value for key, value in found.items()}
    raise CheckpointError(
        f"{path} has no names with tensors, neither at its top nor under {', '.join(WRAPPERS)}. It holds "
        f"{few(list(top), shown=SHOWN) or f'a {type(content).__name__}'}. Save the network's state_dict alone"
    )


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
    return isinstance(name, str) and dense


def _content(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, about protocols
            if path.suffix == ".safetensors":
                return load_file(path)
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:  # there is something beside weights, which is not looked up
                return torch.load(path, map_location="cpu", weights_only=False, pickle_module=unpickle)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: {error}. Nothing of it was run. If you trust its source, load it where "
            "it was made and save its state_dict alone with torch.save"
        ) from error
    except Exception as error:  # a malformed file may cause any
        reason = str(error).partition(". ")[0]  # without torch's advice to trust the file
        raise CheckpointError(
            f"{path} cannot be read: {type(error).__name__}: {reason}. Compare its size with the "
            "source's and fetch it again; files of torch.save, and .safetensors, can be read"
        ) from error
