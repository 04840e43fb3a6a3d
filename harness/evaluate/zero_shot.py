"""The zero-shot kind: pictures are classified by what prompts they resemble. No label is used.

Apart because everything that is a choice here stands in this file: the sentences, and two ways to score.

`clip` (Radford et al., ICML 2021): the cosine to the mean of a class's prompts, each of unit length. Where
labels do not exclude each other, less the cosine to the mean of the prompts that deny it (CheXzero: Tiu et
al., Nature Biomedical Engineering 2022). An image's score does not depend on the other images.

`gloria` (Huang et al., ICCV 2021, released code): the method's own similarity to the nearest prompt of a
class, standardised over the images that are scored together: those of a draw. A decision depends on them, the
order of the images by one class does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.contracts import Task
from harness.data import balanced
from harness.data.task_data import TaskData
from harness.errors import DataError, UsageError
from harness.evaluate import pairing
from harness.evaluate.bench import Bench, Examples
from harness.files import hash_of
from harness.metrics.auroc import require_both_classes
from harness.records import HeadBlock

VERSION = 1

Scoring = Literal["clip", "gloria"]

ASSERTED = ("{}", "there is {}")
DENIED = ("no {}", "there is no {}")


@dataclass(frozen=True)
class Prompts:
    bench: Bench
    task: Task
    scoring: Scoring

    @property
    def block(self) -> HeadBlock:
        asserted, denied = prompts(self.task, ASSERTED), prompts(self.task, DENIED)
        return HeadBlock(
            name="prompts",
            settings={
                "scoring": self.scoring,
                "prompts": asserted.shape[1],  # of each label
                "wording": hash_of(asserted.tolist(), denied.tolist()),
            },
            chosen={},
        )

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`truth` [N, L] int8, `scores` [N, L] float32, `prompt_scores` [N, P, L] float16; `drawn` [N, D]
        bool, which images are in which draw; of an exclusive task `decisions` int8, [N], or as they depend on
        the draw [N, D], and of single prompts `prompt_decisions` [N, P] or [N, P, D]."""
        exclusive, drawn = self.task.exclusive, balanced.draws_of(test.frame)
        of_draws: dict[str, np.ndarray] = {}
        if self.scoring == "gloria":
            similarities = self._compare(test, ASSERTED, pairing.similarity)[0]
            together, single = similarities.max(axis=2), similarities.swapaxes(1, 2)
            of_draws = {
                "decisions": gloria(together, drawn),
                "prompt_decisions": gloria(single, drawn),
            }
        elif exclusive:
            together, single = clip(*self._compare(test, ASSERTED, pairing.cosine))
        else:
            cosines, units = self._compare(test, ASSERTED + DENIED, pairing.cosine)
            half = cosines.shape[2] // 2
            asserted, asserted_alone = clip(cosines[..., :half], units[:, :half])
            denied, denied_alone = clip(cosines[..., half:], units[:, half:])
            together, single = asserted - denied, asserted_alone - denied_alone
        found: dict[str, np.ndarray] = {
            "truth": test.labels.astype(np.int8),
            "scores": together.astype(np.float32),
            "prompt_scores": single.astype(np.float16),  # halves the file; a spread needs no more
            "drawn": drawn,
        }
        if exclusive:
            found["decisions"] = together.argmax(axis=1).astype(np.int8)
            found["prompt_decisions"] = single.argmax(axis=2).astype(np.int8)
        return found | of_draws

    def _compare(
        self, test: Examples, frames: tuple[str, ...], alike: pairing.Alike
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N, L, P] and embeddings [L, P, d] of the prompts in these frames."""
        table = prompts(self.task, frames)
        texts = table.ravel().tolist()
        scores, units = pairing.compare(self.bench, test.rows, texts, alike)
        if np.isinf(scores).any():
            text = texts[int(np.isinf(scores).any(axis=0).argmax())]
            raise DataError(
                f"{self.bench.encoder.method} finds nothing to read in the prompt {text!r}. Change the "
                "wording in the dataset's card to one that its cleaning of texts keeps"
            )
        return scores.reshape(-1, *table.shape), units.reshape(*table.shape, -1)


def check(task: Task, data: TaskData) -> None:
    require_prompts(task)
    test = data.labels[data.parts.test]
    require_both_classes(test, task.labels, "the test images", "Use a dataset with more persons")


def require_prompts(task: Task) -> None:
    """Raises UsageError unless the task has as many wordings for each of its labels."""
    if set(task.prompts) != set(task.labels) or len({len(names) for names in task.prompts.values()}) != 1:
        raise UsageError(
            "the task's prompts must name each of its labels in as many wordings: "
            + ", ".join(f"{label!r} {len(task.prompts.get(label, ()))}" for label in task.labels)
            + ". Correct the dataset's card"
        )


def fit(
    bench: Bench, task: Task, train: Examples, validation: Examples, seed: int, *, scoring: Scoring = "clip"
) -> Prompts:
    """Nothing is fitted: seeds differ in the intervals only."""
    return Prompts(bench, task, scoring)


def prompts(task: Task, frames: tuple[str, ...]) -> np.ndarray:
    """[L, P] sentences, P = frames x wordings of a label; a frame's stand together."""
    return np.array(
        [[frame.format(name) for frame in frames for name in task.prompts[label]] for label in task.labels]
    )


def clip(cosines: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, L] of all prompts and [N, P, L] of single ones, from cosines [N, L, P] and the prompts' embeddings
    [L, P, d] of unit length. The cosine to a mean is the mean cosine over the length of that mean."""
    lengths = np.linalg.norm(units.mean(axis=1), axis=-1)  # [L]
    return cosines.mean(axis=2) / lengths, cosines.swapaxes(1, 2)


def gloria(scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[N, ..., D] int8, the label of each image in each of the draws `drawn` [N, D]: the largest of `scores`
    [N, ..., L] less their mean, over their deviation, of the images of that draw; 0 where all are alike."""
    decisions = []
    for draw in drawn.T:
        centred, deviation = scores - scores[draw].mean(axis=0), scores[draw].std(axis=0)
        standard = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
        decisions.append(standard.argmax(axis=-1))
    return np.stack(decisions, axis=-1).astype(np.int8)
