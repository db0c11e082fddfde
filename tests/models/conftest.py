from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def siglip_directory(clip_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random transformers SiglipModel as it lies on disk, with the tokenizer of the tiny CLIP."""
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": 300, "max_position_embeddings": 24, "projection_size": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("siglip")
    SiglipModel(
        SiglipConfig(text_config=text, vision_config=tower | {"image_size": 16, "patch_size": 8})
    ).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(clip_directory / name, directory / name)
    return directory


@pytest.fixture
def clip_copy(clip_directory: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny CLIP's directory again, without the files named."""

    def copy(*without: str) -> Path:
        directory = tmp_path / "copy"
        shutil.copytree(clip_directory, directory)
        for name in without:
            (directory / name).unlink()
        return directory

    return copy
