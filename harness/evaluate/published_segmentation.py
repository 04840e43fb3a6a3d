"""The segmentation kind under the published protocol: the decoder as MGCA's code trains it, faults included.

Apart because it is a different instrument from the clean protocol's: the encoder's batch norms move, what
ends the training is counted in epochs, and Dice is taken at the size of the network's input.
Source: MGCA 680fe4a, mgca/models/ssl_segmenter.py, mgca/models/mgca/mgca_segmenter.py,
mgca/datasets/segmentation_dataset.py and mgca/utils/segmentation_loss.py. What is not theirs is named by the
last rules of this head in `harness/data/published.py`; and pictures are turned after they were made small
for the cache, by our interpolation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from harness.contracts import Task
from harness.data import published
from harness.evaluate import pyramid, segmentation, training, unet
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.segmentation import Segmenter, decode, new_decoder, true_shares

VERSION = 1

RATE = 5e-4
DECAY = 0.05
PROBABILITY = 0.5  # that a training picture is turned and zoomed
TURN = math.radians(10)  # at most, either way; outside is black
ZOOM = 0.1  # of the picture's size, at most, either way
HALF = 128  # of 255: a pixel of the truth is in the mask when more than half of it is


class InputSegmenter(Segmenter):
    """Counts pixels of the network's input."""

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`truth_area`, `predicted_area` and `overlap`, int64 [N]."""
        truths = true_shares(test).numpy() > HALF
        masks = [each > segmentation.THRESHOLD for each in self.probabilities(test)]
        predicted = np.stack(masks)
        both = {"truth_area": truths, "predicted_area": predicted, "overlap": truths & predicted}
        return {name: mask.sum(axis=(1, 2), dtype=np.int64) for name, mask in both.items()}


check = segmentation.check


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Segmenter:
    model, batch, preprocessing = bench.encoder.build(), published.batch(task), bench.encoder.preprocessing
    generator = Generator().manual_seed(seed)
    own, held_out = true_shares(train), true_shares(validation)
    judged = training.whole_batches(np.arange(len(validation)), batch)
    torch.manual_seed(seed)  # for what an encoder draws by itself, such as dropout
    with frozen(model, bench.device, but_statistics=True) as encoder:
        first = train.on_device(slice(1))
        decoder = new_decoder(pyramid.channels(encoder, first, preprocessing), bench, seed)
        both = nn.ModuleList((model, decoder))  # so that the best epoch's statistics are kept with it

        def loss_of(pixels: Tensor, truth: Tensor) -> Tensor:
            maps = pyramid.encode(encoder, pixels, preprocessing)
            return mixed_loss(decode(decoder, maps, preprocessing.size), truth)

        def loss(rows: np.ndarray) -> Tensor:
            where = motion(len(rows), generator).to(bench.device)
            pixels, truth = train.on_device(rows).float(), shares_of(own, rows, bench)
            return loss_of(moved(pixels, where), moved(truth, where))

        def validate() -> float:
            both.eval()
            with torch.inference_mode():
                losses = [
                    loss_of(validation.on_device(rows), shares_of(held_out, rows, bench)) for rows in judged
                ]
            return torch.stack(losses).mean().item()

        trained = training.train_as_published(
            "decoder",
            both,
            loss,
            validate,
            count=len(train),
            batch=batch,
            learning_rate=RATE,
            weight_decay=DECAY,
            best="min",
            seed=seed,
        )
    block = trained.block(
        "U-Net, statistics moving",
        **training.PUBLISHED,
        criterion="lowest loss",
    )
    return InputSegmenter(model, decoder, block)


def shares_of(truth: Tensor, rows: np.ndarray, bench: Bench) -> Tensor:
    """[B, size, size] in 0..1 of `rows`, on the bench's device."""
    return truth[torch.from_numpy(rows)].to(bench.device) / 255


def mixed_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """`unet.loss` of one batch [B, H, W], but for pixels that a mask covers in part: their focal weight is
    the sigmoid of what 2 truth - 1 makes of the logit."""
    weight = torch.sigmoid(-logits * (2 * truth - 1)) ** unet.GAMMA
    focal = weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    _, pixels, overlap, areas = unet.loss_sums(logits, truth)
    return unet.loss(torch.stack([focal.sum(), pixels, overlap, areas]))


def motion(count: int, generator: Generator) -> Tensor:
    """[B, 2, 3], as `affine_grid` wants it: a random turn and zoom of each picture, or none."""
    chosen = torch.rand(count, generator=generator) < PROBABILITY
    angle, zoom = ((2 * torch.rand(count, generator=generator) - 1) * most * chosen for most in (TURN, ZOOM))
    cosine, sine = angle.cos() / (1 + zoom), angle.sin() / (1 + zoom)
    nothing = torch.zeros(count)
    return torch.stack([cosine, sine, nothing, -sine, cosine, nothing], dim=1).view(-1, 2, 3)


def moved(pictures: Tensor, where: Tensor) -> Tensor:
    """[B, H, H], black outside."""
    grid = F.affine_grid(where, [*pictures[:, None].shape], align_corners=False)
    return F.grid_sample(pictures[:, None], grid, align_corners=False)[:, 0]
