"""Pairs of pictures and reports, found by an encoder that knows them, and by one that guesses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from harness.contracts import ImageFeatures, Split, Task, TextFeatures
from harness.data.locate import Located
from harness.data.splits import Parts
from harness.data.task_data import TaskData
from harness.errors import EmptyClass
from harness.evaluate import pairing, retrieval
from harness.evaluate.bench import Examples
from harness.evaluate.pairing import Alike
from harness.metrics import score
from tests.fakes import LETTERS, Tiny
from tests.harness.evaluate.test_zero_shot import N, encoder, examples

OPEN = Task(("retrieval",), (), "recall_at_5", 1, {"clean": Split(0.2, 0.2)}, reports=True)
REPORTS = [chr(97 + number) * (1 + number) for number in range(N)]


class Oracle(Tiny):
    """Knows which picture belongs to which letter, by its first pixels."""

    def __init__(self, letters: dict[bytes, int]) -> None:
        super().__init__(random=False)
        self.letters = letters

    def encode_image(self, x: Tensor) -> ImageFeatures:
        found = [self.letters[fingerprint(picture)] for picture in x]
        embedding = torch.eye(LETTERS)[found]
        return ImageFeatures(embedding, embedding, None, {})

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        return TextFeatures((prepared > 0).float(), None, None)


def fingerprint(picture: Tensor) -> bytes:
    return bytes(((picture[0, 0] * 0.25 + 0.5) * 255).round().to(torch.uint8).tolist())


def measured(test: Examples, task: Task = OPEN) -> dict[str, float]:
    arrays = retrieval.fit(test.bench, task, test, test, 0).predict(test)
    made = score.of("retrieval", arrays, task.labels)
    return dict(zip(made.names, made(np.ones((N, 1)))[:, 0].tolist(), strict=True))


def test_an_oracle_finds_each_report_and_each_picture() -> None:
    letters: dict[bytes, int] = {}
    test = examples(lambda: Oracle(letters), findings=REPORTS, impression="")
    letters |= {
        bytes(picture[1, 1:9].tolist()): number for number, picture in enumerate(test.on_device().numpy())
    }
    assert set(measured(test).values()) == {1.0}


@pytest.mark.parametrize("blocks", [(5, 3), (1, 1)])
def test_the_table_of_all_pairs_does_not_depend_on_the_blocks(
    blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = examples(encoder, findings=REPORTS, impression="")
    whole = pairing.compare(test.bench, test.rows, REPORTS, pairing.similarity)
    monkeypatch.setattr(pairing, "IMAGES", blocks[0])
    monkeypatch.setattr(pairing, "TEXTS", blocks[1])
    test.bench.compared.clear()
    parts = pairing.compare(test.bench, test.rows, REPORTS, pairing.similarity)
    assert parts.scores == pytest.approx(whole.scores, abs=1e-6)
    assert parts.texts == pytest.approx(whole.texts, abs=1e-6)


def test_what_was_compared_is_not_compared_again() -> None:
    built: list[nn.Module] = []
    test = examples(lambda: built.append(encoder()) or built[-1], findings=REPORTS, impression="")

    def asked(
        rows: np.ndarray = test.rows, texts: list[str] = REPORTS, how: Alike = pairing.cosine
    ) -> np.ndarray:
        return pairing.compare(test.bench, rows, texts, how).scores

    first = asked()
    assert not test.bench.cost.cached["comparison"]
    assert np.array_equal(asked(), first) and test.bench.cost.cached["comparison"] and len(built) == 1
    assert asked(rows=test.rows[::-1]) == pytest.approx(first[::-1], abs=1e-6)
    assert asked(texts=REPORTS[::-1]) == pytest.approx(first[:, ::-1], abs=1e-6)
    assert not np.allclose(asked(how=pairing.similarity), first)
    assert len(built) == 4


def test_a_report_that_the_method_cannot_read_comes_last() -> None:
    test = examples(encoder, findings=["???", *REPORTS[1:]], impression="")
    place = retrieval.fit(test.bench, OPEN, test, test, 0).predict(test)["place"]
    assert place[0, 0, 0] == N - 1
    found = pairing.compare(test.bench, test.rows, ["???", "ab"], pairing.similarity)
    assert np.isneginf(found.scores[:, 0]).all() and np.isfinite(found.scores[:, 1]).all()


def test_a_method_reads_the_section_it_was_trained_to_compare() -> None:
    test = examples(encoder, findings=REPORTS, impression="x")
    assert retrieval.fit(test.bench, OPEN, test, test, 0).block.settings == {"text": "findings"}
    shuffled = examples(encoder, findings=REPORTS, impression=REPORTS[::-1])
    assert measured(test) == measured(shuffled)


def test_the_right_report_is_worded_the_same_as_a_whole_whatever_is_read() -> None:
    """All findings alike: a method that reads them finds the first picture's report for every picture."""
    test = examples(encoder, findings="clear", impression=REPORTS)
    place = retrieval.fit(test.bench, OPEN, test, test, 0).predict(test)["place"][:, 0, 0]
    assert place.tolist() == list(range(N))
    alike = examples(encoder, findings="clear", impression=["x"] * 10 + REPORTS[10:])
    place = retrieval.fit(alike.bench, OPEN, alike, alike, 0).predict(alike)["place"][:, 0, 0]
    assert place.tolist() == [0] * 10 + list(range(10, N))


def test_pictures_of_one_study_have_one_report_among_the_candidates() -> None:
    test = examples(encoder, findings=REPORTS, impression="")
    for name in ("study_id", "findings"):
        test.frame[name] = test.frame[name].to_numpy()[np.arange(N) // 2]  # pairs of pictures
    place = retrieval.fit(test.bench, OPEN, test, test, 0).predict(test)["place"]
    assert place[:, 0, 0].max() < N / 2 < place[:, 0, 1].max()


def test_too_few_pairs_are_refused_with_their_number() -> None:
    def data(count: int, labels: int) -> TaskData:
        ids = [str(row) for row in range(count) for _ in range(2)]  # two pictures of each report
        frame = pd.DataFrame({"image_id": np.arange(2 * count).astype(str), "study_id": ids})
        none = np.arange(0)
        table = np.eye(max(labels, 1), dtype=np.int8)[np.arange(2 * count) // 2 % max(labels, 1)][:, :labels]
        parts = Parts(none, none, np.arange(2 * count))
        return TaskData(Located(None, "real"), "", True, frame, table, "", parts, (), None, none, none)  # type: ignore[arg-type]

    retrieval.check(OPEN, data(6, 0))
    with pytest.raises(EmptyClass, match="more than 5 among the test reports, but there are 5"):
        retrieval.check(OPEN, data(5, 0))
    classes = Task(("retrieval",), ("a", "b"), "precision_at_5", 1, {})
    retrieval.check(classes, data(10, 2))
    with pytest.raises(EmptyClass, match=r"5 of each of 2 classes among .* 4 of the rarest"):
        retrieval.check(classes, data(9, 2))
