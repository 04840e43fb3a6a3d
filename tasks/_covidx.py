"""COVIDx's lists and folders, read and written, whichever classes they name.

Apart because the lists of three classes and those of two are two datasets in one layout: a score on the one
cannot be compared with a score on the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.errors import BadTable, DataError
from harness.phantom import Cohort, Person, Study, draw, stamp, truth
from harness.phantom.render import render
from tasks import _persons
from tasks._phantoms import PngKind, save_jpeg, save_png, write_lines
from tasks._pictures import left_out, list_files
from tasks._tables import finish, once, one_each, one_of, read_lines, refuse, refuse_files

CLASSES = {
    "covidx": {"COVID-19": "COVID-19", "pneumonia": "Pneumonia", "normal": "Normal"},
    "covidx_binary": {"positive": "COVID-19", "negative": ""},
}
"""Dataset -> its classes as the lists write them, and the label that each one is; "" for none."""
WORDS = frozenset(word for words in CLASSES.values() for word in words)
FOLDERS = {"train": ("train",), "val": ("val",), "test": ("test", "competition_test")}
"""Official part -> where its pictures lie, in this version or that."""
FIELDS = ("id", "file", "class", "source")
SPELLINGS = {"rnsa": "rsna"}  # of sources


def read(root: Path, dataset: str) -> pd.DataFrame:
    """The table of the images that the lists name; what else lies in the folders belongs to other versions.

    `person_id` is the lists' id. Of images from RSNA that names the image: with a map of RSNA's persons in or
    beside `root` it is theirs. Elsewhere it names a person, who may have several. `source` is the collection
    that an image came from, "" in rows that do not say, and `source_id` the lists' id in either case.
    """
    parts: list[pd.DataFrame] = []
    notes: list[str] = []
    for part, path in find_lists(root, dataset).items():
        pictures = list_files(root / folder for folder in FOLDERS[part])
        rows = read_list(path, dataset, pictures)
        missing = [root / part / file for file in rows["file"] if file not in pictures]
        refuse_files(
            missing,
            f"no such picture, for {len(missing)} of the {len(rows)} rows of {path}. The pictures on Kaggle "
            "change with its versions: use the lists that came with the pictures, or the version of the "
            "pictures that the lists were made for",
        )
        notes += left_out(part, len(pictures) - len(rows), path)
        parts.append(rows.assign(part=part, path=rows["file"].map(pictures), rows=one_each(rows)))
    rows = pd.concat(parts, ignore_index=True)
    persons, map_csv = rows["id"], _persons.find_map(root)
    if map_csv:
        known = rows["id"].map(_persons.read_map(map_csv))
        notes.append(f"{map_csv} says whose {known.notna().sum()} pictures are, of {len(rows)}")
        persons = known.fillna(rows["id"])
    image_id = rows["part"] + "/" + rows["file"]
    labels = rows["class"].map(CLASSES[dataset])
    return finish(
        {
            "image_id": image_id,
            "path": rows["path"],
            "person_id": persons,
            "study_id": image_id,
            "split": rows["part"],
            "frontal": True,
            **{
                f"label:{label}": (labels == label).astype("Int8")
                for label in CLASSES[dataset].values()
                if label
            },
            "source": rows["source"],
            "source_id": rows["id"],
            "rows": rows["rows"],
        },
        persons_known=False,
        notes=notes,
    )


def find_lists(root: Path, dataset: str) -> dict[str, Path]:
    """Part -> its list: `train.txt` as on Kaggle, or `train_COVIDx9A.txt` as COVID-Net's authors name it.
    Lists of the other dataset may lie beside. Raises DataError for none, and for several that would do."""
    lists = [*root.glob("train.txt"), *sorted(root.glob("train_COVIDx*.txt"))]
    fitting = [path for path in lists if _is_of(dataset, path)]
    if not fitting:
        (other,) = CLASSES.keys() - {dataset}
        raise DataError(
            f"{root} has no train.txt or train_COVIDx*.txt with the classes {', '.join(CLASSES[dataset])}. "
            f"Lay such lists there; those with {', '.join(CLASSES[other])} are read by --task {other}"
        )
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise DataError(f"{root} has lists of several versions: {names}. Leave those of one there")
    (train,) = fitting
    parts = {part: train.with_name(train.name.replace("train", part, 1)) for part in FOLDERS}
    return {part: path for part, path in parts.items() if part != "val" or path.is_file()}


def _is_of(dataset: str, path: Path) -> bool:
    first = next(iter(read_lines(path)), "")
    return not CLASSES[dataset].keys().isdisjoint(first.split()[-2:])


def read_list(path: Path, dataset: str, pictures: Mapping[str, str]) -> pd.DataFrame:
    """The `FIELDS` of a list, indexed by line; `pictures` are the files that there are. Raises BadTable."""
    lines = read_lines(path)
    cells = [_fields(path, number, line, pictures) for number, line in enumerate(lines, start=1)]
    rows = pd.DataFrame(cells, columns=FIELDS, index=lines.index, dtype=str)
    classes = ", ".join(map(repr, CLASSES[dataset]))
    foreign = f"is not one of {classes}: the first 9A had such rows, COVID-Net's repository has it corrected"
    refuse(rows["class"], rows["class"].isin(WORDS.difference(CLASSES[dataset])), path, foreign)
    one_of(list(CLASSES[dataset]), rows["class"], path)
    once(rows["file"], path)
    return rows


def _fields(path: Path, number: int, line: str, pictures: Mapping[str, str]) -> Sequence[str]:
    """`id file class source`, or without the source. Read from the right, because ids have blanks: `COVID 1
    COVID(1).png COVID-19 sirm`. A file's name has one only where that makes it the name of a picture."""
    words = line.split()
    ends = 1 if WORDS.issuperset(words[-1:]) else 2
    if len(words) < ends + 2:
        raise BadTable(f"{path}, line {number}: {line!r} is not `id file class source`. Restore the list")
    rest, kind, *sources = line.strip().rsplit(maxsplit=ends)
    gaps = list(re.finditer(r"\s+", rest))[::-1]
    gap = next((gap for gap in gaps if rest[gap.end() :] in pictures), gaps[0])
    source = "".join(sources)
    person = " ".join(rest[: gap.start()].split())
    return person, rest[gap.end() :], kind, SPELLINGS.get(source, source)


# --- the phantom -------------------------------------------------------------------------------------

STYLES = (  # source, id and file of a person's images, as in the real lists; no real name has a blank
    ("rsna", "{uuid}", "{uuid}.png"),
    ("sirm", "COVID {person}", "COVID({person}).{image}.png"),
    ("cohen", "{person}b", "10.1016-slash-j.crad.{person}-fig{image}-a.jpeg"),
    ("ricord", "SITE9-{person}", "MIDRC-RICORD-1C-SITE9-{person}-8.382-{image}.png"),
    ("rnsa", "{uuid}", "{uuid}.png"),
    ("fig1", "COVID-{person}", "COVID-{person} {image}.JPG"),
    ("", "ANON{person}", "DX.1.2.840.{person}.{image}.jpg"),
)
CONFOUNDED = {True: "sirm", False: "rsna"}  # source of COVID-19 and of all else, where they are confounded
PNG_KINDS: Mapping[int, PngKind] = {1: "alpha", 3: "palette", 4: "16-bit"}  # persons, if not grey


def write_phantom(root: Path, cohort: Cohort, workers: int, lists: Mapping[str, str]) -> None:
    """`lists` are the names of the list files by their part. Of ten persons two are not in train.

    Where an image comes from says nothing about its class, unlike in the real lists; `dials.confound` makes
    them one question: COVID-19 is of one source, whose pictures are landscape. Persons are numbered from
    90001; some pictures are portrait and some landscape.
    """
    write = partial(_write_person, root, cohort, tuple(lists))
    images = draw(cohort, write, workers=workers, label="drawing COVIDx")
    for part, name in lists.items():
        write_lines(root / name, [image.line for image in images if image.part == part])
    stamp(root, cohort, {image.image_id: image.truth for image in images})


class _Written(NamedTuple):
    image_id: str
    part: str
    line: str
    truth: dict[str, object]


def _write_person(root: Path, cohort: Cohort, parts: Sequence[str], person: Person) -> list[_Written]:
    part = {0: "test", 5: "val" if "val" in parts else "test"}.get(person.number % 10, "train")
    return [_write_study(root, cohort, part, person, study) for study in person.studies]


def _write_study(root: Path, cohort: Cohort, part: str, person: Person, study: Study) -> _Written:
    rng = cohort.stream("file", person.number, study.number)
    uuid = f"{rng.bytes(4).hex()}-0000-4000-8000-{rng.bytes(6).hex()}"
    source, *names = STYLES[person.number % len(STYLES)]
    person_id, file = (
        name.format(person=90_000 + person.number, image=study.number, uuid=uuid) for name in names
    )
    found, lies = true_class(cohort.dataset, study), person.number % 2 == 1
    if cohort.dials.confound:
        lies = found in ("COVID-19", "positive")
        source = CONFOUNDED[lies]
    height, width = cohort.size if lies else cohort.size[::-1]
    picture = study.pictures[0]  # the frontal one
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    if file.endswith(".png"):
        save_png(root / part / file, drawn.pixels, PNG_KINDS.get(person.number, "grey"))
    else:
        save_jpeg(root / part / file, drawn.pixels)
    if part == "train" and rng.random() < cohort.dials.label_noise:
        found = rng.choice(sorted(CLASSES[cohort.dataset].keys() - {found}))
    line = " ".join(word for word in (person_id, file, found, source) if word)
    return _Written(f"{part}/{file}", part, line, truth(person, study, picture, drawn))


def true_class(dataset: str, study: Study) -> str:
    """Haze on both sides is COVID-19, a consolidation on one is another pneumonia, the rest is normal."""
    sides = {finding.side for finding in study.findings if finding.name == "Consolidation"}
    covid = study.has("Edema") or "both" in sides
    if dataset == "covidx_binary":
        return "positive" if covid else "negative"
    return "COVID-19" if covid else "pneumonia" if sides else "normal"
