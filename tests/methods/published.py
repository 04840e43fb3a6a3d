"""Files with weights as the authors' code writes them, of networks by torchvision, timm and transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import BertConfig, BertModel

State = dict[str, Tensor]

WIDTH = 768  # of the text encoder
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "clear", "lung", "##s", "no", "effusion"]
BERT = BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=WIDTH,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=8,  # thin: the real one makes no difference to keys
)


@dataclass
class Source:
    """A file's content and the parts it was made of."""

    content: Any
    image: Any
    parts: dict[str, Any] = field(default_factory=dict)


class DictConfig:
    """Stands for the settings of a package that is not installed where the file is read."""


# --- parts -------------------------------------------------------------------------------------------


def prefixed(prefix: str, module: nn.Module) -> State:
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


@cache
def resnet(classes: int = 0) -> Any:
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=classes or 1)
    if not classes:
        model.fc = nn.Identity()
    model(torch.randn(4, 3, 64, 64))  # moves the running means
    return model.eval()


def stages(model: Any, x: Tensor) -> dict[str, Tensor]:
    """What methods read of a ResNet, by torchvision's own layers."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    third = model.layer3(model.layer2(model.layer1(x)))
    return {"layer3": third, "pooled": model.layer4(third).mean(dim=(2, 3))}


def children(model: Any) -> nn.Module:
    """Its layers under numbers: 0 is conv1, 1 is bn1, 4 to 7 are layer1 to layer4."""
    return nn.Sequential(*list(model.children())[:-1])


def bert(*, pooler: bool = True) -> Any:
    torch.manual_seed(1)
    return BertModel(BERT, add_pooling_layer=pooler).eval()


def head(inner: int, hidden: int, outer: int, *, pixels: bool = False) -> nn.Sequential:
    """With batch norm, of IMITATE and MGCA: of vectors, or of pixels by convolutions."""
    layer: Any = partial(nn.Conv1d, kernel_size=1) if pixels else nn.Linear
    first, last = nn.BatchNorm1d(hidden), nn.BatchNorm1d(outer, affine=False)
    found = nn.Sequential(layer(inner, hidden), first, nn.ReLU(), layer(hidden, outer), last)
    found(torch.randn(4, inner, 3) if pixels else torch.randn(4, inner))
    return found.eval()


# --- files -------------------------------------------------------------------------------------------


def torchvision_resnet() -> Source:
    return Source(resnet(classes=10).state_dict(), resnet(classes=10))


def imitate_encoder() -> Source:
    return Source(resnet().state_dict(), resnet())


def imitate_whole() -> Source:
    image, diag, text = resnet(), head(2048, 2048, 512), head(WIDTH, 1024, 512)
    state = {
        **prefixed("encoder.", image),
        "cls_token": torch.randn(1, 1, 256),
        "positional_embedding": torch.randn(1, 513, 256),
        **prefixed("multi_attent.", nn.MultiheadAttention(256, 4, batch_first=True)),
        **prefixed("read_proj.", head(256, 256, 512)),
        **prefixed("diag_proj.", diag),
        **prefixed("text_proj.", text),
        **prefixed("lm_model.", bert()),
    }
    return Source(state, image, {"diag": diag, "text": text})


def gloria() -> Source:
    image, text, glob = resnet(), bert(), nn.Linear(2048, WIDTH)
    local = nn.Conv2d(1024, WIDTH, 1, bias=False)
    state = {
        **prefixed("gloria.img_encoder.model.", image),
        **prefixed("gloria.img_encoder.global_embedder.", glob),
        **prefixed("gloria.img_encoder.local_embedder.", local),
        **prefixed("gloria.text_encoder.model.", text),
        "gloria.text_encoder.model.embeddings.position_ids": torch.arange(512)[None],
    }
    content = {"epoch": 16, "state_dict": state, "hyper_parameters": DictConfig(), "hparams_type": DictConfig}
    return Source(content, image, {"text": text, "global": glob, "local": local})


def mgca(image: Any, width: int, inner: int) -> Source:
    """`width` is that of the image's features, `inner` that of its regions."""
    text = bert(pooler=False)
    text.embeddings.token_type_embeddings.weight.data.zero_()
    parts = {"image": head(width, 2048, 128), "report": head(WIDTH, 2048, 128)}
    parts["region"] = head(inner, 2048, 128, pixels=True)
    state = {
        **prefixed("img_encoder_q.model.", image),
        **prefixed("img_encoder_q.global_embed.head.", parts["image"]),
        **prefixed("img_encoder_q.local_embed.head.", parts["region"]),
        **prefixed("text_encoder_q.model.", text),
        "text_encoder_q.model.embeddings.position_ids": torch.arange(512)[None],
        "text_encoder_q.model.encoder.layer.0.crossattention.self.query.weight": torch.zeros(WIDTH, WIDTH),
        **prefixed("text_encoder_q.global_embed.head.", parts["report"]),
        **prefixed("text_encoder_q.local_embed.head.", head(WIDTH, 2048, 128, pixels=True)),
        **prefixed("patch_local_atten_layer.", nn.MultiheadAttention(128, 1)),
        **prefixed("word_local_atten_layer.", nn.MultiheadAttention(128, 1)),
        "prototype_layer.weight": torch.randn(500, 128),
    }
    del state["text_encoder_q.model.embeddings.token_type_embeddings.weight"]
    return Source({"state_dict": state, "hyper_parameters": {"lr": 2e-5}}, image, {**parts, "text": text})


def mgca_resnet() -> Source:
    return mgca(resnet(), 2048, 1024)


def mgca_vit() -> Source:
    torch.manual_seed(0)
    return mgca(timm.create_model("vit_base_patch16_224", num_classes=0).eval(), WIDTH, WIDTH)


def edreismd() -> Source:
    image = resnet()
    state = {
        **prefixed("res_features.", children(image)),
        **prefixed("res_l1.", nn.Linear(2048, 2048)),
        **prefixed("res_l2.", nn.Linear(2048, 512)),
        **prefixed("bert_model.", bert()),
        **prefixed("bert_l1.", nn.Linear(WIDTH, WIDTH)),
        **prefixed("bert_l2.", nn.Linear(WIDTH, 512)),
    }
    return Source(state, image)


def benchx(*, named: bool) -> Source:
    image = resnet()
    state = {
        **prefixed("visual.model.", image if named else children(image)),
        **prefixed("vis_proj.", nn.Sequential(nn.Linear(2048, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))),
        **prefixed("lin_proj.", nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))),
        **prefixed("linguistic.encoder.", bert()),
    }
    return Source({"model": state, "config": DictConfig()}, image)
