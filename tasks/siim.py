"""SIIM-ACR Pneumothorax: 12,047 chest X-rays, the pneumothoraces of 2,669 of them outlined by radiologists.

Four variants are in circulation: the challenge's first stage (A), its reissue with the labels of the first
test part (B), Kaggle's second stage (C), and a conversion to PNG (D). They differ in names, spaces and file
formats, and one table comes out of all. Facts about the layouts: the label file in torchxrayvision, the code
of MGCA and GLoRIA, BenchX's lists of the PNGs; every count of B was made on the file itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from harness.contracts import DatasetCard, PhantomSize, PublishedSplit, Split, Task, Variant
from harness.errors import BadTable, DataError
from harness.phantom import Cohort, Person, Study, draw, stamp, truth, with_finding
from harness.phantom.render import Rendered, render
from tasks import _rle
from tasks._dicom import read_header, save_dicom, uids
from tasks._phantoms import save_png, write_csv
from tasks._pictures import left_out, list_files
from tasks._tables import finish, once, read_cells, read_files, refuse, refuse_files, translate

SOURCE = "MGCA 680fe4a, mgca/preprocess/siim.py, mgca/datasets/segmentation_dataset.py; GLoRIA's parts too"
PUBLISHED = PublishedSplit(
    source=SOURCE,
    rules=(
        "parts-drawn-by-csv-row",
        "training-negatives-drawn-down",
        "fraction-chosen-by-image-twice",
        "whole-masks-in-every-part",
        "contrast-of-the-dicom-header",
    ),
    held_out=0.3,
    batch=8,
)
PUBLISHED_PARTS = PublishedSplit(
    source=SOURCE,
    rules=(
        "parts-drawn-by-csv-row",
        "training-negatives-drawn-down",
        "fraction-chosen-by-image-twice",
        "kind-not-in-the-source",
        "contrast-of-the-dicom-header",
    ),
    held_out=0.3,
)
BY_PERSON = Split(test=0.15, validation=0.15)
UNREPEATED = 0.9  # persons per picture; RSNA's pictures, from the same source, have 0.43
CARD = DatasetCard(
    title="SIIM-ACR Pneumothorax Segmentation",
    source="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation and its first stage's pictures, or "
    "as PNG https://www.kaggle.com/datasets/vbookshelf/pneumothorax-chest-xray-images-and-masks",
    licence="rules of the SIIM-ACR challenge on Kaggle: non-commercial research and education",
    citation="Filice et al., Crowdsourcing pneumothorax annotations using machine learning annotations on "
    "the NIH chest X-ray dataset, Journal of Digital Imaging 2020",
    folders=(
        "siim-acr-pneumothorax-segmentation",
        "siim-acr-pneumothorax",
        "pneumothorax-chest-xray-images-and-masks/siim-acr-pneumothorax",
    ),
    markers=(
        "stage_2_train.csv or train-rle.csv or stage_1_train_images.csv",
        "dicom-images-train or png_images",
    ),
    variants=(
        Variant(
            "with the first test part",
            12_047,
            positives={"": {"Pneumothorax": 2_669}},
            totals={"rows": 12_954},
        ),
        Variant("first stage", 10_675),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=("Pneumothorax",),
            metric="macro_auroc",
            version=1,
            splits={"clean": BY_PERSON, "published": PUBLISHED_PARTS},
            prompts={"Pneumothorax": ("pneumothorax", "apical pneumothorax", "visible pleural line")},
        ),
        Task(
            kinds=("segmentation",),
            labels=("Pneumothorax",),
            metric="dice",
            version=1,
            splits={"clean": BY_PERSON, "published": PUBLISHED},
        ),
    ),
    shares_pictures=("chestxray14", "rsna", "covidx", "covidx_binary"),
    phantom={"demo": PhantomSize(800, 160, 160), "paper": PhantomSize(8_000, 320, 320)},
)

HEADER = ("ImageId", "EncodedPixels")
NOTHING = "-1"  # the code of a picture without a pneumothorax
CODES = ("stage_2_train.csv", "train-rle.csv")  # the first of them that is there holds the labels
TREES = ("dicom-images-train/*/*/*.dcm", "dicom-images-test/*/*/*.dcm", "stage_2_images/*.dcm")
PNG_TABLES = ("stage_1_train_images.csv", "stage_1_test_images.csv")
PNG_HEADER = ("new_filename", "ImageId", "has_pneumo")


def read(root: Path) -> pd.DataFrame:
    """The table. `mask` is the run-length code of all of a picture's outlines together, "" where there is
    none; where the download holds masks as pictures, it is the path of one. `read_mask` takes either.

    Pictures without a label are left out: they are neither positive nor negative.
    """
    root = root.resolve()
    codes_csv = next((root / name for name in CODES if (root / name).is_file()), None)
    return _read_dicoms(root, codes_csv) if codes_csv else _read_pngs(root)


def read_mask(cell: str, height: int, width: int) -> NDArray[np.bool_]:
    """A cell of `mask` as pixels [height, width], the size of its picture.

    Raises DataError when a mask's file has another size.
    """
    if not cell.endswith(".png"):
        return _rle.decode(_rle.parse(cell), height, width)
    with Image.open(cell) as file:
        mask = np.asarray(file.convert("L")) > 127
    if mask.shape != (height, width):
        raise DataError(f"{cell} has {mask.shape} pixels, its picture {(height, width)}. Restore both files")
    if not mask.any():
        raise DataError(
            f"{cell} is a mask of nothing: no pixel is above 127. Restore it; masks are 0 and 255"
        )
    return mask


def _read_dicoms(root: Path, codes_csv: Path) -> pd.DataFrame:
    images = read_codes(codes_csv)
    # a picture that lies in two trees has one UID, so it is the same
    found = {path.stem: path for tree in TREES for path in root.glob(tree) if path.name[0] != "."}
    refuse_files(
        (f"{image}.dcm" for image in images.index if image not in found),
        f"no such picture under {', '.join(TREES)} of {root}. Complete the download",
    )
    paths = [found[image] for image in images.index]
    headers = pd.DataFrame(read_files(read_header, paths, "reading DICOM headers"), index=images.index)
    _check_masks(images["mask"], headers, codes_csv)
    # ids that hardly a picture shares are the pictures', as in RSNA's files: a copied one would share its own
    persons = headers["person"].where(headers["person"] != "", images.index)
    persons_known = persons.nunique() < UNREPEATED * len(persons)
    unlabelled = Counter(path.relative_to(root).parts[0] for path in set(found.values()) - set(paths))
    return finish(
        {
            "image_id": images.index,
            "path": list(map(str, paths)),
            "person_id": persons if persons.duplicated().any() else images.index,
            "study_id": images.index,
            "view": headers["view"],
            "frontal": True,
            "sex": headers["sex"],
            "age": headers["age"],
            **images,
        },
        persons_known=persons_known,
        notes=[note for tree in sorted(unlabelled) for note in left_out(tree, unlabelled[tree], codes_csv)],
    )


def read_codes(path: Path) -> pd.DataFrame:
    """`label:Pneumothorax`, `mask`, `rows` per ImageId. The file has a row per outline, or one of none."""
    rows = read_cells(path, HEADER, skip_spaces=True, filled=True)
    ids, codes = rows["ImageId"], rows["EncodedPixels"]
    nothing = codes == NOTHING
    refuse(ids, rows.duplicated(), path, "has the same row twice")
    refuse(ids, nothing.groupby(ids).transform("nunique") > 1, path, f"has an outline and a row {NOTHING}")
    refuse(codes, codes == "", path, f"is neither an outline nor {NOTHING}")
    outlines: dict[str, list[_rle.Runs]] = {image: [] for image in ids[~nothing]}
    for line, image, code in zip(ids.index[~nothing], ids[~nothing], codes[~nothing], strict=True):
        try:
            outlines[image].append(_rle.parse(code))
        except (ValueError, OverflowError) as error:
            raise BadTable(
                f"{path}, line {line}, column 'EncodedPixels': {error}. Restore the file from the download"
            ) from error
    masks = {image: _rle.write(_rle.union(*runs)) for image, runs in outlines.items()}
    images = (~nothing).groupby(ids).first().astype("Int8").to_frame("label:Pneumothorax")
    places = pd.Series(range(len(ids)), index=ids.index).groupby(ids).agg(tuple)
    return images.assign(mask=[masks.get(image, "") for image in images.index], rows=places)


def _check_masks(masks: pd.Series, headers: pd.DataFrame, path: Path) -> None:
    ends = masks.map(lambda code: _rle.end(_rle.parse(code)))
    outside = headers[ends > headers["height"] * headers["width"]]
    if len(outside):
        size = f"{outside['width'].iloc[0]} x {outside['height'].iloc[0]}"
        raise BadTable(
            f"{path}: an outline of {outside.index[0]} ends outside its picture of {size} pixels. "
            "Outlines and pictures must be of the same release"
        )


def _read_pngs(root: Path) -> pd.DataFrame:
    parts = []
    for name in PNG_TABLES:
        rows = read_cells(root / name, PNG_HEADER, exact=False)
        once(rows["ImageId"], root / name)
        label = translate(rows["has_pneumo"], {"0": 0, "1": 1}, root / name).astype("Int8")
        flag = rows["new_filename"].str.extract(r"_([01])_\.png$", expand=False)
        refuse(rows["new_filename"], flag != rows["has_pneumo"], root / name, "contradicts its has_pneumo")
        parts.append(rows.assign(**{"label:Pneumothorax": label}))
    images = pd.concat(parts).set_index("ImageId")
    paths = f"{root}/png_images/" + images["new_filename"]
    masks = (f"{root}/png_masks/" + images["new_filename"]).where(images["label:Pneumothorax"] == 1, "")
    refuse_files(
        (mask for mask in masks if mask and not Path(mask).is_file()), "no such mask. Complete the download"
    )
    unlabelled = list_files([root / "png_images"], ".png").keys() - set(images["new_filename"])
    return finish(
        {
            "image_id": images.index,
            "path": paths,
            "person_id": images.index,
            "study_id": images.index,
            "frontal": True,
            "label:Pneumothorax": images["label:Pneumothorax"],
            "mask": masks,
        },
        persons_known=False,
        notes=left_out("png_images", len(unlabelled), root / PNG_TABLES[0]),
    )


# --- the phantom -------------------------------------------------------------------------------------

Layout = Literal["A", "B", "C", "D"]

SPACES: Mapping[Layout, tuple[str, str]] = {"A": (" ", " "), "B": (" ", ""), "C": ("", "")}
"""What stands before the name of a table's second column, and before every code in it."""
ADDED = 0.15  # share of studies given a pneumothorax: 22 % of the challenge's have one, fewer of a clinic's
ROWS = (0.77, 0.17, 0.04, 0.02)  # shares of outlines that are written in 1, 2, 3 and 4 rows
TEST_EVERY = 9  # of so many persons one is in the first stage's test part
LAST_PIXEL, ONE_PIXEL, UNLABELLED = 1, 2, 3
"""Persons whose first picture has an outline up to its last pixel, one of a single pixel, or no label."""


def write_phantom(root: Path, cohort: Cohort, workers: int, layout: Layout = "B") -> None:
    """One picture per study. A person keeps one PatientID; the conversion to PNG (D) lost it."""
    images = draw(cohort, partial(_write_person, root, cohort, layout), workers=workers, label="drawing SIIM")
    images.sort(key=lambda image: image.image_id)
    labelled = [image for image in images if image.part != "unlabelled"]
    if layout == "D":
        for name, part in zip(PNG_TABLES, ("train", "test"), strict=True):
            rows = [[image.png, image.image_id, image.ill] for image in labelled if image.part == part]
            write_csv(root / name, PNG_HEADER, rows)
    else:
        before_name, before_code = SPACES[layout]
        write_csv(
            root / ("stage_2_train.csv" if layout == "C" else "train-rle.csv"),
            (HEADER[0], before_name + HEADER[1]),
            [[image.image_id, before_code + code] for image in labelled for code in image.codes or [NOTHING]],
        )
    if layout == "C":
        unlabelled = [[image.image_id, NOTHING] for image in images if image.part == "unlabelled"]
        write_csv(root / "stage_2_sample_submission.csv", HEADER, unlabelled)
    stamp(root, cohort, {image.image_id: image.truth for image in images})


class _Written(NamedTuple):
    image_id: str
    part: str  # train, test or unlabelled
    png: str  # name in variant D
    ill: int  # 1 or 0
    codes: list[str]
    truth: dict[str, object]


def case(cohort: Cohort, person: Person, study: Study) -> Study:
    """The study as the challenge's makers chose it: more have a pneumothorax than by chance."""
    rng = cohort.stream("added", person.number, study.number)
    return with_finding(study, "Pneumothorax", rng) if rng.random() < ADDED else study


def outlines(drawn: Rendered, person: Person, study: Study) -> list[NDArray[np.bool_]]:
    """Masks [H, W]: what a reader sees, and in two pictures a slip of the pen."""
    masks = [lesion.mask for lesion in drawn.lesions if lesion.name == "Pneumothorax"]
    slip = np.zeros(drawn.pixels.shape, dtype=bool)
    if study.number == 1 and person.number == LAST_PIXEL:
        slip[-2:, -3:] = True
    elif study.number == 1 and person.number == ONE_PIXEL:
        slip[len(slip) // 2, 1] = True
    return [*masks, slip] if slip.any() else masks


def _write_person(root: Path, cohort: Cohort, layout: Layout, person: Person) -> list[_Written]:
    return [
        _write_study(root, cohort, layout, person, study)
        for study in person.studies
        if layout != "D" or _part(person, study) != "unlabelled"
    ]


def _write_study(root: Path, cohort: Cohort, layout: Layout, person: Person, study: Study) -> _Written:
    study, picture = case(cohort, person, study), study.pictures[0]  # the frontal one
    height, width = cohort.size
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    masks = outlines(drawn, person, study)
    part = _part(person, study)
    ill = int(bool(masks))
    names = uids(f"{cohort.dataset}/{cohort.seed}/{person.number}/{study.number}")
    png = f"{4 * (person.number - 1) + study.number}_{part}_{ill}_.png"  # nobody has more than four studies
    if layout == "D":
        save_png(root / "png_images" / png, drawn.pixels)
        save_png(root / "png_masks" / png, np.any([np.zeros_like(drawn.pixels), *masks], axis=0))
    else:
        if layout == "C" and part == "unlabelled":
            folder = root / "stage_2_images"
        else:
            tree = "test" if layout != "A" and part == "test" else "train"
            folder = root / f"dicom-images-{tree}" / names.study / names.series
        folder.mkdir(parents=True, exist_ok=True)
        bits = cohort.stream("PatientID", person.number).bytes(10).hex()
        save_dicom(
            folder / f"{names.image}.dcm",
            drawn.pixels,
            uids=names,
            person=f"{bits[:8]}-0000-4000-8000-{bits[8:]}",
            view=picture.view,
            sex=person.sex,
            age=str(person.age),
        )
    rng = cohort.stream("file", person.number, study.number)
    codes = [code for mask in masks for code in _rows(_rle.encode(mask), rng)]
    return _Written(names.image, part, png, ill, codes, truth(person, study, picture, drawn))


def _part(person: Person, study: Study) -> str:
    if study.number == 1 and person.number == UNLABELLED:
        return "unlabelled"
    return "train" if person.number % TEST_EVERY else "test"


def _rows(runs: _rle.Runs, rng: np.random.Generator) -> list[str]:
    """One outline as one to four rows, as of several readers: neighbours share a run."""
    count = 1 + int(rng.choice(len(ROWS), p=ROWS))
    pieces = np.array_split(np.arange(len(runs)), min(count, len(runs)))
    return [_rle.write(runs[piece[0] : piece[-1] + 2]) for piece in pieces]
