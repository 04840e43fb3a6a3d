"""What a killed training goes on from: one sealed file, replaced as a whole.

Apart because it is the promise that a resumed training ends as one that was not killed: whatever a step
depends on and cannot be drawn anew from its number is in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.errors import CheckpointError
from harness.files import is_sealed, replacing, seal

STATE = "state.pt"


def save(folder: Path, state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """`state` as it is, and the state of each of `parts`."""
    whole = {**state, **{name: part.state_dict() for name, part in parts.items()}}
    with replacing(folder / STATE) as temporary:
        torch.save(whole, temporary)
        seal(temporary)


def restore(folder: Path, parts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Puts back the parts, each on its device, and returns the rest, on the CPU; None when nothing was saved.
    Raises CheckpointError when the file is broken or of another network."""
    path = folder / STATE
    if not path.exists():
        return None
    cure = f"Delete {folder} to start over"
    if not is_sealed(path):
        raise CheckpointError(f"{path} is not the file that was written. {cure}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    try:
        for name, part in parts.items():
            part.load_state_dict(state.pop(name))
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}. {cure}") from error
    return state
