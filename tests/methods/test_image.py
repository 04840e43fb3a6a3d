"""The vision transformer's attention, and weights that cannot be had."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.contracts import ImageBackbone
from harness.errors import CheckpointError
from methods import imagenet
from methods._image import ImageEncoder, VisionTransformer

SMALL = ImageBackbone("vit_tiny_patch16_224", options={"img_size": 64, "depth": 3})


def test_attention_is_the_last_block_s() -> None:
    torch.manual_seed(0)
    encoder = VisionTransformer(SMALL).eval()
    last = encoder.net.blocks[-1].attn
    last.fused_attn = False
    seen: list[Tensor] = []
    last.attn_drop.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        pooled, patches, attention = encoder.attend(x)
        whole, pyramid = encoder(x)
        tokens = encoder.net.forward_features(x)
    torch.testing.assert_close(attention, seen[0][:, :, 0, 1:].mean(dim=1))
    torch.testing.assert_close(pooled, tokens[:, 0])
    torch.testing.assert_close(patches, tokens[:, 1:])
    torch.testing.assert_close(whole, pooled)
    torch.testing.assert_close(pyramid[16].flatten(2).transpose(1, 2), patches)


def test_a_transformer_s_pyramid_keeps_its_mean() -> None:
    encoder = VisionTransformer(SMALL).eval()
    with torch.inference_mode():
        _, pyramid = encoder(torch.randn(1, 3, 64, 64))
    assert {stride: maps.shape[-1] for stride, maps in pyramid.items()} == {4: 16, 8: 8, 16: 4, 32: 2}
    torch.testing.assert_close(pyramid[32].mean((2, 3)), pyramid[16].mean((2, 3)), rtol=0.3, atol=0.2)


def test_an_average_attends_to_all_regions_alike() -> None:
    encoder = ImageEncoder(ImageBackbone("resnet18")).eval()
    with torch.inference_mode():
        pooled, regions, share = encoder.attend(torch.randn(2, 3, 64, 64))
    assert regions.shape == (2, 16, 256) and pooled.shape == (2, 512)
    torch.testing.assert_close(share, torch.full((2, 16), 1 / 16))


def test_upsampling_comes_first() -> None:
    plain, larger = (ImageEncoder(ImageBackbone("resnet18"), upsample=side).eval() for side in (None, 96))
    larger.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    resized = torch.nn.functional.interpolate(x, (96, 96), mode="bilinear", align_corners=True)
    with torch.inference_mode():
        torch.testing.assert_close(larger(x)[0], plain(resized)[0])


def test_weights_out_of_reach_are_an_error_with_a_cure_after_one_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def unreachable(repository: str, **_: object) -> None:
        asked.append(repository)
        raise OSError("no route to host.\nPlease check your connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        CheckpointError, match=r"no weights of timm/resnet50\.tv_in1k: no route to host\. Let .*HF_HOME"
    ):
        imagenet.build(imagenet.CARD.profiles["paper"])
    assert asked == ["timm/resnet50.tv_in1k"]


def test_weights_in_the_hub_s_cache_need_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as a download leaves it."""
    commit, folder = "0" * 40, tmp_path / "models--timm--resnet18.tv_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    state = timm.create_model("resnet18").state_dict()
    save_file(state, folder / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = imagenet.build(imagenet.CARD.profiles["demo"])
    for name, value in model.encoder.net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_that_follow_need_no_hub() -> None:
    model = imagenet.build(imagenet.CARD.profiles["paper"], initialise=False).eval()
    with torch.inference_mode():
        assert model.encode_image(torch.randn(1, 3, 64, 64)).pooled.shape == (1, 2048)
