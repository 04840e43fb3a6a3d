"""Prompts against pictures, on an encoder whose embeddings are known: formulas written out a second way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from harness.contracts import ImageFeatures, Task, TextFeatures
from harness.cost import Cost
from harness.data.cache import Images
from harness.errors import CheckpointError, DataError, UsageError
from harness.evaluate import pairing, zero_shot
from harness.evaluate.bank import Source
from harness.evaluate.bench import Bench, Examples
from tests.fakes import PROFILE, Tiny

LABELS = ("Edema", "Mass")
TASK = Task(
    ("zero-shot",),
    LABELS,
    "macro_auroc",
    1,
    {},
    prompts={"Edema": ("edema", "wet lungs", "fluid"), "Mass": ("mass", "a lump", "growth")},
)
EXCLUSIVE = replace(TASK, exclusive=True, metric="accuracy")
N = 23


class Wordy(Tiny):
    """Its similarity reads letters as words and pixels as regions, so that it is no cosine of embeddings."""

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        return super().similarity(image, text).sin()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Wordy(random=False)


def examples(build: Any = encoder, **columns: Any) -> Examples:
    pixels = np.random.default_rng(0).integers(0, 256, (N + 2, 10, 10), dtype=np.uint8)
    pixels.flags.writeable = False
    images = Images(pixels, np.full((N + 2, 2), 10, np.uint32), "p", {}, True)
    source = Source("tiny", 1, "c" * 64, "w" * 64, PROFILE.preprocessing, build, "findings")
    bench = Bench(source, images, None, torch.device("cpu"), "float32", Cost())  # type: ignore[arg-type]
    rows = np.random.default_rng(1).permutation(N + 2)[:N]  # not all, and not in order
    labels = (np.arange(N)[:, None] % 2 == np.arange(2)).astype(np.int8)
    ids = [f"i{row}" for row in rows]
    return Examples(bench, rows, pd.DataFrame({"image_id": ids, "study_id": ids, **columns}), labels)


def embedded(test: Examples, texts: list[str]) -> tuple[Tensor, Tensor, np.ndarray]:
    """Of unit length [N, d] and [T, d], and the method's own similarities [N, T]: one pass, written out."""
    model: Any = encoder().eval()
    pixels = test.on_device()[:, 1:9, 1:9] / 255
    with torch.inference_mode():
        image = model.encode_image(((pixels - 0.5) / 0.25)[:, None].expand(-1, 3, -1, -1))
        text = model.encode_text(model.prepare_text(texts))
        units = [x / x.norm(dim=1, keepdim=True) for x in (image.embedding, text.embedding)]
        return units[0], units[1], model.similarity(image, text).numpy()


def predicted(task: Task, test: Examples, **options: Any) -> dict[str, np.ndarray]:
    return zero_shot.fit(test.bench, task, test, test, 0, **options).predict(test)


def class_vectors(test: Examples, frames: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Images [N, d], and the mean prompt of each label [L, d]."""
    texts = [[frame.format(name) for frame in frames for name in TASK.prompts[label]] for label in LABELS]
    vectors = [embedded(test, group)[1].mean(dim=0) for group in texts]
    return embedded(test, ["x"])[0], torch.stack(vectors)


def cosines(image: Tensor, text: Tensor) -> np.ndarray:
    return torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=2).numpy()


@pytest.mark.parametrize("blocks", [(64, 32), (5, 2), (1, 1)])
def test_a_class_is_as_near_as_the_mean_of_its_prompts_whatever_the_blocks(
    blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "IMAGES", blocks[0])
    monkeypatch.setattr(pairing, "TEXTS", blocks[1])
    test = examples()
    expected = cosines(*class_vectors(test, ("{}", "there is {}")))
    found = predicted(EXCLUSIVE, test)
    assert found["scores"] == pytest.approx(expected, abs=1e-5)
    assert found["decisions"].tolist() == expected.argmax(axis=1).tolist()
    first = cosines(embedded(test, ["x"])[0], embedded(test, ["edema", "mass"])[1])
    assert found["prompt_scores"].shape == (N, 6, 2)
    assert found["prompt_scores"][:, 0] == pytest.approx(first, abs=1e-3)  # the first wording, first frame
    assert np.array_equal(found["prompt_decisions"][:, 0], first.argmax(axis=1))


def test_labels_that_do_not_exclude_each_other_are_asserted_against_denied() -> None:
    test = examples()
    expected = cosines(*class_vectors(test, ("{}", "there is {}"))) - cosines(
        *class_vectors(test, ("no {}", "there is no {}"))
    )
    found = predicted(TASK, test)
    assert found["scores"] == pytest.approx(expected, abs=1e-5)
    assert "decisions" not in found
    alone = embedded(test, ["edema", "no edema", "mass", "no mass"])
    table = cosines(alone[0], alone[1])
    assert found["prompt_scores"][:, 0] == pytest.approx(table[:, ::2] - table[:, 1::2], abs=2e-3)


def test_a_score_does_not_depend_on_the_other_images() -> None:
    test = examples()
    some = Examples(test.bench, test.rows[:7], test.frame.iloc[:7], test.labels[:7])
    assert predicted(TASK, some)["scores"] == pytest.approx(predicted(TASK, test)["scores"][:7], abs=1e-6)


def test_gloria_decides_by_maxima_standardised_over_the_images_of_a_draw() -> None:
    rng = np.random.default_rng(2)
    drawn = np.stack([rng.random(N) < 0.5, rng.random(N) < 0.5, np.ones(N, dtype=bool)], axis=1)
    test = examples(**{f"draw:{number}": column for number, column in enumerate(drawn.T)})
    found = predicted(EXCLUSIVE, test, scoring="gloria")
    texts = zero_shot.prompts(TASK, zero_shot.ASSERTED)
    alike = np.stack([embedded(test, list(group))[2] for group in texts], axis=1)  # [N, L, P]
    assert found["scores"] == pytest.approx(alike.max(axis=2), abs=1e-5)
    for number, draw in enumerate(drawn.T):
        alone = StandardScaler().fit_transform(alike.max(axis=2)[draw])
        assert np.array_equal(found["decisions"][draw, number], alone.argmax(axis=1))
        for prompt in range(alike.shape[2]):
            alone = StandardScaler().fit_transform(alike[draw][..., prompt])
            assert np.array_equal(found["prompt_decisions"][draw, prompt, number], alone.argmax(axis=1))
    assert (found["decisions"][:, 0] != found["decisions"][:, 1]).any()  # they depend on the draw
    assert zero_shot.gloria(np.ones((4, 2)), np.ones((4, 1), dtype=bool)).tolist() == [[0]] * 4  # all alike


def test_texts_without_any_words_for_the_method_are_named() -> None:
    test = examples()
    with pytest.raises(DataError, match=r"tiny finds nothing to read in any of 2 texts, such as '123'"):
        pairing.compare(test.bench, test.rows, ["123", "456"], pairing.cosine)


def test_nothing_is_compared_by_a_method_that_reads_otherwise_than_it_was_trained_to() -> None:
    def refuse(method: object) -> None:
        raise CheckpointError(f"{type(method).__name__} reads otherwise")

    test = examples()
    bench = replace(test.bench, encoder=test.bench.encoder._replace(check_text=refuse))
    with pytest.raises(CheckpointError, match="Wordy reads otherwise"):
        pairing.compare(bench, test.rows, ["edema"], pairing.cosine)


def test_a_prompt_without_words_for_the_method_is_named() -> None:
    wordless = replace(TASK, prompts={"Edema": ("123",), "Mass": ("mass",)})
    with pytest.raises(DataError, match=r"tiny finds nothing to read in the prompt '123'"):
        predicted(replace(wordless, exclusive=True), examples())


@pytest.mark.parametrize(
    "prompts", [{}, {"Edema": ("edema",)}, {"Edema": ("edema", "fluid"), "Mass": ("mass",)}]
)
def test_labels_without_equally_many_wordings_are_refused(prompts: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UsageError, match="as many wordings: 'Edema'"):
        zero_shot.require_prompts(replace(TASK, prompts=prompts))


def test_the_head_says_how_many_prompts_of_which_wording() -> None:
    test = examples()
    other = replace(TASK, prompts={**TASK.prompts, "Mass": ("mass", "a lump", "tumour")})
    settings, others = (
        zero_shot.fit(test.bench, task, test, test, 0).block.settings for task in (TASK, other)
    )
    assert (settings["scoring"], settings["prompts"]) == ("clip", 6)
    assert settings["wording"] != others["wording"]
