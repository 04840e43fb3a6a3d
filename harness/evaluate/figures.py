"""Pictures of what a head found beside what is there: the test images it does best and worst at.

Apart because a number hides how a model fails, and kinds that say where something is share the drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from harness.data.decode import decode
from harness.data.picture import eight_bits
from harness.evaluate.bench import Examples
from harness.files import replacing

EACH = 2  # best, and worst, of the images that show something, and of those that show nothing
SIDE = 768  # of the longer side of a figure in pixels
LINE = 5  # width of an outline in pixels, odd
CAPTION = 28  # height of the strip below a picture
TRUE, PREDICTED = (0, 200, 255), (255, 140, 0)  # told apart by colour-blind readers too


class Drawing(NamedTuple):
    """What is drawn of one picture, in its own pixels: masks [H, W] bool, or boxes [K, 4] xyxy."""

    truth: np.ndarray
    predicted: np.ndarray


@runtime_checkable
class Drawable(Protocol):
    """A head whose predictions can be drawn."""

    def quality(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N] in 0..1, of each image that `predict` gave `arrays` for."""
        ...

    def drawings(self, examples: Examples) -> Iterator[Drawing]:
        """One of each image, in order."""
        ...


def save(folder: Path, head: Drawable, test: Examples, arrays: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes `shows-worst-1.png` and the like; `arrays` is what the head predicted for `test`."""
    quality = head.quality(arrays)
    chosen = _chosen(quality, (test.labels == 1).any(axis=1))
    drawings = head.drawings(test.take(np.array(list(chosen.values()), dtype=np.int64)))
    for (name, place), drawing in zip(chosen.items(), drawings, strict=True):
        row = test.frame.iloc[place]
        figure = draw(_grey(Path(row["path"])), drawing, f"score {quality[place]:.2f}   {row['image_id']}")
        with replacing(folder / f"{name}.png") as path:
            figure.save(path, format="PNG")
    return [folder / f"{name}.png" for name in chosen]


def draw(pixels: np.ndarray, drawing: Drawing, caption: str) -> Image.Image:
    """`pixels` [H, W] uint8, enlarged or reduced, with the outlines of truth and prediction and a legend."""
    zoom = SIDE / max(pixels.shape)
    height, width = (round(side * zoom) for side in pixels.shape)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")
    for shape, colour in ((drawing.truth, TRUE), (drawing.predicted, PREDICTED)):
        if shape.dtype == bool:
            mask = Image.fromarray(shape).convert("L").resize((width, height), Image.Resampling.NEAREST)
            inside = mask.filter(ImageFilter.MinFilter(LINE))
            picture.paste(colour, mask=ImageChops.subtract(mask, inside))
        else:
            brush = ImageDraw.Draw(picture)
            for box in (shape * zoom).tolist():
                brush.rectangle(box, outline=colour, width=LINE // 2 + 1)
    figure = Image.new("RGB", (width, height + CAPTION))
    figure.paste(picture)
    brush, left = ImageDraw.Draw(figure), 6.0
    for text, colour in (("true", TRUE), ("predicted", PREDICTED), (caption, (255, 255, 255))):
        brush.text((left, height + CAPTION / 2), text, colour, ImageFont.load_default(15), anchor="lm")
        left += brush.textlength(f"{text}   ", ImageFont.load_default(15))
    return figure


def _chosen(quality: np.ndarray, shows: np.ndarray) -> dict[str, int]:
    """Name of a figure -> place of its image: worst first, and of equals the first."""
    chosen = {}
    for kind, of_kind in (("shows", shows), ("empty", ~shows)):
        places = np.flatnonzero(of_kind)
        rising = places[np.argsort(quality[places], kind="stable")].tolist()
        each = min(EACH, len(rising) // 2)
        for number in range(each):
            chosen[f"{kind}-worst-{number + 1}"] = rising[number]
            chosen[f"{kind}-best-{number + 1}"] = rising[-1 - number]
    return chosen


def _grey(path: Path) -> np.ndarray:
    """[H, W] uint8"""
    return eight_bits(decode(path).pixels)
