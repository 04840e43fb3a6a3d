"""Headers of DICOM files, and such files for phantoms in each encoding that the challenges come in.

Apart because RSNA and SIIM are made of the same kind of file. Pixels are read in harness/data/dicom.py.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from harness.errors import UnreadableImage
from tasks._phantoms import JPEG_QUALITY

Encoding = Literal["jpeg", "raw", "inverted", "12 bit"]
FIELDS = ["Rows", "Columns", "PatientID", "ViewPosition", "PatientSex", "PatientAge"]
OLDEST = 120  # years; RSNA has five ages between 148 and 155


class Header(NamedTuple):
    person: str  # PatientID as it stands there; whether it names a person differs between the challenges
    view: str  # "PA", "AP" or ""
    sex: str  # "F", "M" or ""
    age: float  # years, NaN when unknown or impossible
    height: int  # pixels
    width: int


def read_header(path: Path) -> Header:
    """What a file says about the person and the picture. Raises UnreadableImage."""
    try:
        return _header(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=FIELDS))
    except Exception as error:  # damaged bytes make pydicom raise nearly anything
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableImage(f"{path} has no readable DICOM header ({reason}). Restore the file") from error


def _header(header: Dataset) -> Header:
    age = re.fullmatch(r"(\d+)Y?", str(header.get("PatientAge", "")))
    years = float(age[1]) if age else math.nan
    return Header(
        person=str(header.get("PatientID", "")),
        view=_one_of(("PA", "AP"), header.get("ViewPosition")),
        sex=_one_of(("F", "M"), header.get("PatientSex")),
        age=years if years <= OLDEST else math.nan,
        height=int(header.Rows),
        width=int(header.Columns),
    )


class Uids(NamedTuple):
    study: str
    series: str
    image: str


def uids(key: str) -> Uids:
    """Of one picture, under the root for UUIDs, which no scanner uses; the same key gives the same ones."""
    digests = (hashlib.sha256(f"{level}/{key}".encode()).digest() for level in Uids._fields)
    return Uids(*(f"2.25.{int.from_bytes(digest[:16], 'big')}" for digest in digests))


def save_dicom(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    uids: Uids,
    person: str,
    view: str,
    sex: str,
    age: str,
    encoding: Encoding = "jpeg",
) -> None:
    """`pixels` [H, W] as a Secondary Capture, with the header fields that the challenges left in.

    `age` is written as it is: the official files hold bare digits, which the standard does not allow.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids
    dataset.Modality = "CR"
    dataset.ConversionType = "WSD"
    dataset.SeriesDescription = f"view: {view}"
    dataset.PatientName = dataset.PatientID = person
    dataset.PatientSex = sex
    dataset["PatientAge"] = DataElement("PatientAge", "AS", age, validation_mode=IGNORE)
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.PixelSpacing = ["0.143", "0.143"]
    stored: NDArray[np.unsignedinteger] = pixels
    bits, kind = 8, "MONOCHROME2"
    if encoding == "inverted":
        stored, kind = 255 - pixels, "MONOCHROME1"
    elif encoding == "12 bit":  # stored values 8 .. 4088 stand for 0 .. 255
        stored, bits = pixels.astype(np.uint16) * 16 + 8, 12
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "0.0625", "-0.5", "US"
    dataset.set_pixel_data(stored, kind, bits, generate_instance_uid=False)
    if encoding == "jpeg":
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.LossyImageCompression = "01"
        dataset.PixelData = encapsulate([_jpeg(pixels)])
    dataset.save_as(path, enforce_file_format=True)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _one_of(known: tuple[str, ...], value: object) -> str:
    return str(value) if value in known else ""
