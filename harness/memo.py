"""What is made once for all who ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError


def once(memo: dict[object, Any], key: object, make: Callable[[], Any]) -> Any:
    """What `make` makes, kept in `memo`. What cannot be had is tried once too: its error is raised again."""
    if key not in memo:
        try:
            memo[key] = make()
        except HarnessError as error:
            memo[key] = error
    if isinstance(memo[key], HarnessError):
        raise memo[key]
    return memo[key]
