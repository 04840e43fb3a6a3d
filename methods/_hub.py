"""Published weights from the model hub, or from its cache on this machine.

Apart because image and text encoders share it: without a connection, the libraries they come from would
each try for minutes before they say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import CheckpointError


def folder_with(repository: str, patterns: Sequence[str]) -> Path:
    """The folder of those files of a repository that fit. Raises CheckpointError when it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))  # asks once
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, a malformed name a ValueError
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"no weights of {repository}: {reason}. Let this machine reach the model hub once (hf download "
            f"{repository}), or copy the hub's cache folder (HF_HOME) from a machine that has them"
        ) from error
