"""Pictures against texts: every one of the one with every one of the other.

Apart because zero-shot tasks and retrieval both need the whole table. Scores within batches, as some released
code has them, change with the batch; here blocks only bound the memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import ImageFeatures, TextFeatures, TextMethod
from harness.data import transforms
from harness.errors import DataError
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench, Compared
from harness.files import hash_bytes, hash_of
from harness.progress import Bar

IMAGES, TEXTS = 64, 32
"""A block. A method that compares words with regions, as GLoRIA with its 361 regions and some 50 words a
text, makes 64 x 361 x 1600 numbers of it, or splits it further."""

Alike = Callable[[TextMethod, ImageFeatures, TextFeatures], Tensor]
"""[B, T] of a block; higher means more alike."""


def cosine(method: TextMethod, image: ImageFeatures, text: TextFeatures) -> Tensor:
    """Cosine similarity [n_images, n_texts] of the embeddings alone."""
    assert image.embedding is not None
    return normalize(image.embedding, dim=1) @ normalize(text.embedding, dim=1).T


def similarity(method: TextMethod, image: ImageFeatures, text: TextFeatures) -> Tensor:
    """The method's own, which may look at words and regions."""
    return method.similarity(image, text)


def compare(bench: Bench, rows: np.ndarray, texts: Sequence[str], alike: Alike) -> Compared:
    """The pictures at `rows` of the bench's images with all `texts`. Cells of other seeds ask the same of the
    same bench, and are answered from memory."""
    key = hash_of(hash_bytes(rows.tobytes()), *texts, alike.__name__)
    bench.cost.cached["comparison"] = key in bench.compared
    if key not in bench.compared:
        with bench.cost.step("comparison"):
            bench.compared[key] = _compared(bench, rows, texts, alike)
    return bench.compared[key]


def _compared(bench: Bench, rows: np.ndarray, texts: Sequence[str], alike: Alike) -> Compared:
    preprocessing, device = bench.encoder.preprocessing, bench.device
    with frozen(bench.encoder.build(), device) as model, Bar("comparing", len(rows)) as bar:
        method = cast(TextMethod, model)
        bench.encoder.check_text(method)
        prepared = method.prepare_text(texts)
        readable = prepared.flatten(1).any(dim=1)
        if not readable.any():
            raise DataError(
                f"{bench.encoder.method} finds nothing to read in any of {len(texts)} texts, such as "
                f"{texts[0]!r}. Choose another task, or change the wording"
            )
        read = [method.encode_text(block.to(device)) for block in torch.split(prepared[readable], TEXTS)]
        started = time.monotonic()
        scores = np.full((len(rows), len(texts)), -np.inf, np.float32)
        for start in range(0, len(rows), IMAGES):
            block = slice(start, start + IMAGES)
            pixels = torch.tensor(bench.images.pixels[rows[block]], device=device)
            image = method.encode_image(transforms.evaluation_view(pixels, preprocessing))
            found = torch.cat([alike(method, image, text) for text in read], dim=1)
            scores[block, readable.numpy()] = found.float().cpu().numpy()
            bar.advance(len(pixels))
        bench.cost.images_per_second = len(rows) / (time.monotonic() - started)
        embeddings = torch.cat([text.embedding for text in read]).float()
    units = np.zeros((len(texts), embeddings.shape[1]), np.float32)
    units[readable.numpy()] = normalize(embeddings, dim=1).cpu().numpy()
    return Compared(scores, units)
