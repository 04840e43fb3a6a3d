"""Whose pictures RSNA's are: a map from its images to the patients of NIH's ChestX-ray14.

Apart because COVIDx took pictures over from RSNA, under RSNA's ids, and persons with them. torchxrayvision
keeps such a map, found by matching pixels.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tasks._tables import once, read_cells, refuse

MAP = "rsna_person_map.csv"
HEADER = ("patientId", "nih_image")


def find_map(root: Path) -> Path | None:
    """In or beside `root`, plain or as .gz; None when there is none."""
    places = (folder / f"{MAP}{end}" for folder in (root, root.parent) for end in ("", ".gz"))
    return next(filter(Path.is_file, places), None)


def read_map(path: Path) -> pd.Series:
    """NIH patient, as ChestX-ray14 writes it, by patientId: its pictures' names begin with it. Raises
    BadTable."""
    rows = read_cells(path, HEADER, exact=False)
    pictures = rows["nih_image"]
    refuse(pictures, ~pictures.str.fullmatch(r"\d{8}_\d{3}\.png"), path, "is no picture of ChestX-ray14")
    return pictures.str[:8].set_axis(once(rows["patientId"], path))
