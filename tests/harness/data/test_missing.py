"""Pictures that a table names and nobody downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.data import cache
from harness.errors import DataError


@pytest.mark.parametrize("ask", [cache.outstanding, cache.open_images], ids=["estimate", "decode"])
def test_missing_pictures_are_named_before_anything_is_decoded(
    tmp_path: Path, ask: Callable[..., object]
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths[:2]:
        Image.new("L", (8, 8)).save(path)
    workers = {"workers": 1} if ask is cache.open_images else {}
    place = tmp_path / "cache"
    with pytest.raises(DataError) as caught:
        ask(cache.Wanted("set", [path.stem for path in paths], paths, 4, "pad"), folder=place, **workers)
    named = ", ".join(map(str, paths[2:5]))
    assert str(caught.value) == f"{named} and 4 more: no such picture. Complete the download"
    assert not place.exists()


def test_what_else_a_disk_refuses_is_no_missing_download(tmp_path: Path) -> None:
    path = tmp_path / f"{'long' * 99}.png"
    with pytest.raises(OSError, match="File name too long"):
        cache.outstanding(cache.Wanted("set", ["long"], [path], 4, "pad"), folder=tmp_path / "cache")
