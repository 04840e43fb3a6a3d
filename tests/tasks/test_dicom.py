"""Headers of DICOM files, damaged in every byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.errors import UnreadableImage
from tasks._dicom import Header, read_header, save_dicom, uids


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    pixels = np.zeros((20, 30), np.uint8)
    save_dicom(path, pixels, uids=uids("a"), person="p", view="PA", sex="F", age="30")
    return path


def test_a_header_says_who_and_how_large(file: Path) -> None:
    assert read_header(file) == Header(person="p", view="PA", sex="F", age=30, height=20, width=30)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_header_is_read_or_names_its_file(file: Path) -> None:
    whole, refused = file.read_bytes(), set()
    for place in range(132, len(whole) - 600):  # what follows are pixels
        file.write_bytes(whole[:place] + b"\x41" + whole[place + 1 :])
        try:
            read_header(file)
        except UnreadableImage as error:
            assert str(error).startswith(f"{file} has no readable DICOM header (")
            assert str(error).endswith("Restore the file")
            refused.add(type(error.__cause__))
    assert {AttributeError, NotImplementedError} < refused  # it raises nearly anything
