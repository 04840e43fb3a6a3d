"""Files as the authors' code writes them, of networks by torchvision, timm and transformers, come back as the
same functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from harness import plan, registry
from harness.contracts import Layout
from harness.errors import CheckpointError, UsageError
from harness.pretrain import importers, make
from harness.pretrain.checkpoint import Checkpoint
from tests.methods import published
from tests.methods.published import BERT, VOCABULARY, WIDTH, Source, prefixed, stages

pytestmark = pytest.mark.slow  # whole networks of every layout

LAYOUTS = [
    (name, layout)
    for name in registry.entries("methods")
    for layout in getattr(registry.load("methods", name), "LAYOUTS", ())
]


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the model hub that holds Bio_ClinicalBERT's settings with six thin layers, no weights."""
    cache = tmp_path_factory.mktemp("hub")
    model = cache / "models--emilyalsentzer--Bio_ClinicalBERT"
    snapshot = model / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0")
    (snapshot / "config.json").write_text(json.dumps(BERT.to_dict()))
    (snapshot / "vocab.txt").write_text("\n".join(VOCABULARY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


TOKENS = torch.tensor([[VOCABULARY.index(piece) for piece in ("[CLS]", "clear", "lung", "##s", "[SEP]")]])


def stored(folder: Path, source: Source, **options: Any) -> tuple[Checkpoint, Any]:
    """The checkpoint of a file, and the network that a run reads from it."""
    torch.save(source.content, folder / "theirs.pth")
    found = importers.import_file(folder / "theirs.pth", folder / "store", **options)
    return found, make.load(plan.method(found.card.method, "paper"), found).eval()


def picture() -> Tensor:
    torch.manual_seed(7)
    return torch.randn(1, 3, 224, 224)


def upsampled(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=True)


def assert_near(found: Tensor | None, wanted: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


# --- what every layout says --------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "layout"), LAYOUTS, ids=[layout.title for _, layout in LAYOUTS])
def test_every_weight_of_the_network_has_a_name_in_the_file(method: str, layout: Layout) -> None:
    with torch.device("meta"):
        wanted = registry.load("methods", method).build(layout.profile, initialise=False).state_dict()
    beginnings = layout.renamed.values()
    nameless = [key for key in wanted if not key.startswith(tuple(beginnings)) and key not in layout.zeros]
    assert nameless == []
    assert [start for start in beginnings if not any(key.startswith(start) for key in wanted)] == []
    assert [key for key in layout.zeros if key not in wanted] == []


HALVES = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406)
PREPROCESSING = {
    "GLoRIA, ResNet-50": ("pad", HALVES, 299),
    "MGCA, ResNet-50": ("pad", HALVES, 299),
    "MGCA, ViT-B/16": ("pad", HALVES, None),
    "IMITATE, whole module": ("stretch", IMAGENET, None),
    "IMITATE, image encoder": ("stretch", IMAGENET, None),
    "ConVIRT by edreisMD": ("pad", IMAGENET, None),
    "ConVIRT by BenchX": ("pad", IMAGENET, None),
    "ResNet-50 of torchvision or timm": ("stretch", IMAGENET, None),
}


@pytest.mark.parametrize("title", PREPROCESSING)
def test_pre_processing_is_that_of_the_authors(title: str) -> None:
    [shape] = [layout.profile.preprocessing for _, layout in LAYOUTS if layout.title == title]
    assert (shape.geometry, shape.mean, shape.upsample) == PREPROCESSING[title]
    assert (shape.size, shape.stored) == (224, 256)


# --- image encoders alone ----------------------------------------------------------------------------

ENCODERS: dict[str, tuple[Callable[[], Source], str, set[str]]] = {
    "torchvision": (published.torchvision_resnet, "imagenet", {"fc"}),
    "IMITATE": (published.imitate_encoder, "imitate", set()),
    "edreisMD": (published.edreismd, "convirt", {"res_l1", "res_l2", "bert_model", "bert_l1", "bert_l2"}),
    "BenchX": (lambda: published.benchx(named=True), "convirt", {"vis_proj", "lin_proj", "linguistic"}),
    "BenchX by number": (
        lambda: published.benchx(named=False),
        "convirt",
        {"vis_proj", "lin_proj", "linguistic"},
    ),
}


@pytest.mark.parametrize(("make_source", "method", "left"), ENCODERS.values(), ids=ENCODERS)
def test_an_image_encoder_sees_what_its_source_sees(
    tmp_path: Path, make_source: Callable[[], Source], method: str, left: set[str]
) -> None:
    source = make_source()
    found, model = stored(tmp_path, source, method=method)
    with torch.inference_mode():
        seen = model.encode_image(picture())
        assert_near(seen.pooled, stages(source.image, picture())["pooled"])
    assert seen.embedding is None and found.card.profile.text is None
    assert found.card.imported is not None
    dropped = [key for keys in found.card.imported.dropped.values() for key in keys]
    assert {key.split(".")[0] for key in dropped} == left


def test_an_encoder_without_a_name_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--method imagenet .* or --method imitate"):
        stored(tmp_path, published.imitate_encoder())


# --- whole methods -----------------------------------------------------------------------------------


def test_imitate(tmp_path: Path) -> None:
    source = published.imitate_whole()
    _, model = stored(tmp_path, source)
    raw = torch.randn(2, WIDTH)
    with torch.inference_mode():
        seen = model.encode_image(picture())
        pooled = stages(source.image, picture())["pooled"]
        assert_near(seen.pooled, pooled)
        assert_near(seen.embedding, source.parts["diag"](pooled))
        assert_near(model.encode_text(raw).embedding, source.parts["text"](raw))


def test_gloria(tmp_path: Path) -> None:
    source = published.gloria()
    found, model = stored(tmp_path, source)
    with torch.inference_mode():
        seen = model.encode_image(picture())
        wanted = stages(source.image, upsampled(picture()))
        assert_near(seen.pooled, wanted["pooled"])
        assert_near(seen.embedding, source.parts["global"](wanted["pooled"]))
        assert_near(seen.local, source.parts["local"](wanted["layer3"]).flatten(2).transpose(1, 2))
        read = model.encode_text(model.prepare_text(["clear lungs"]))
        states = source.parts["text"](TOKENS, output_hidden_states=True).hidden_states[-4:]
        assert_near(read.embedding, torch.stack(states).sum(0).sum(1) / 4)  # CLS, clear, lungs, SEP
    assert found.card.imported is not None
    assert found.card.imported.dropped == {
        "never used": [f"gloria.text_encoder.model.pooler.dense.{name}" for name in ("weight", "bias")],
        "a constant of older transformers": ["gloria.text_encoder.model.embeddings.position_ids"],
    }


MGCA = [
    pytest.param(published.mgca_resnet, id="ResNet-50"),
    pytest.param(published.mgca_vit, id="ViT-B/16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("make_source", MGCA)
def test_mgca(tmp_path: Path, make_source: Callable[[], Source]) -> None:
    source = make_source()
    found, model = stored(tmp_path, source)
    parts = source.parts
    with torch.inference_mode():
        seen = model.encode_image(picture())
        if found.card.method == "mgca":
            wanted = stages(source.image, upsampled(picture()))
            pooled, regions = wanted["pooled"], wanted["layer3"].flatten(2)
        else:
            tokens = source.image.forward_features(picture())
            pooled, regions = tokens[:, 0], tokens[:, 1:].transpose(1, 2)
        assert_near(seen.pooled, pooled)
        assert_near(seen.embedding, parts["image"](pooled))
        assert_near(seen.local, parts["region"](regions).transpose(1, 2))
        read = model.encode_text(
            model.prepare_text(["clear lungs", "no effusion clear", "clear effusion no"])
        )
        first = parts["text"](TOKENS, position_ids=torch.zeros_like(TOKENS)).last_hidden_state[:, 0]
        assert_near(read.embedding[:1], parts["report"](first))
        assert_near(read.embedding[1], read.embedding[2])  # as released: blind to the order of words
    assert found.card.profile.text is not None and found.card.profile.text.positions == "zero"
    assert found.card.imported is not None
    assert {reason: len(keys) for reason, keys in found.card.imported.dropped.items()} == {
        "a constant of older transformers": 1,
        "never used: the text encoder reads no pictures": 1,
        "never used": 8,
    }


def test_a_smaller_release_is_refused_by_its_first_odd_key(tmp_path: Path) -> None:
    source = published.gloria()
    small = torchvision.models.resnet18(weights=None)
    small.fc = nn.Identity()
    state = source.content["state_dict"]
    state = {key: value for key, value in state.items() if ".img_encoder.model." not in key}
    state.update(prefixed("gloria.img_encoder.model.", small))
    with pytest.raises(
        CheckpointError, match=r"GLoRIA, ResNet-50 has .*layer1\.0\.conv1\.weight in the shape"
    ):
        stored(tmp_path, Source({"state_dict": state}, small))
