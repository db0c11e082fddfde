from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.openclip_forward import SMALL, Tensors, random_weights

CORPUS = ("a photo of a dog", "a cat", "a much longer sentence about a very small mouse", "word")


@pytest.fixture(scope="session")
def siglip_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random transformers SiglipModel as it lies on disk, with a SentencePiece tokenizer as SigLIP has it."""
    import sentencepiece

    directory = tmp_path_factory.mktemp("siglip")
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=pieces, vocab_size=100, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (directory / "spiece.model").write_bytes(pieces.getvalue())
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 24}
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer", **special}))
    write_siglip(directory)
    return directory


@pytest.fixture(scope="session")
def siglip2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the BPE tokenizer of Gemma as SigLIP 2 has it: it keeps the case and here adds no end."""
    from tokenizers import Tokenizer, models, trainers

    directory = tmp_path_factory.mktemp("siglip2")
    core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=299, special_tokens=special, show_progress=False)
    core.train_from_iterator([text.replace(" ", "\u2581") for text in CORPUS], trainer)
    core.save(str(directory / "tokenizer.json"))
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    record = {"tokenizer_class": "GemmaTokenizer", "padding_side": "left", "add_eos_token": True, **named}
    (directory / "tokenizer_config.json").write_text(json.dumps(record))
    write_siglip(directory)
    return directory


def write_siglip(directory: Path, *, image_size: int = 16, patch_size: int = 8, vocabulary: int = 300) -> None:
    """A random SiglipModel of two layers into a directory."""
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": vocabulary, "max_position_embeddings": 24, "projection_size": 32}
    text |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1}
    vision = tower | {"image_size": image_size, "patch_size": patch_size}
    torch.manual_seed(1)
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(directory)


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


@pytest.fixture(scope="session")
def weights() -> Tensors:
    return random_weights(SMALL)


@pytest.fixture
def put(weights: Tensors, tmp_path: Path) -> Callable[..., Path]:
    """Write weights (the small model's unless given) into a new directory; `config` goes beside them."""

    def write(
        tensors: Any = None, *, config: dict[str, Any] | None = SMALL, name: str = "open_clip_model.safetensors"
    ) -> Path:
        directory = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        content = weights if tensors is None else tensors
        if name.endswith(".safetensors"):
            save_file({key: value.clone() for key, value in content.items()}, directory / name)
        else:
            torch.save(content, directory / name)
        if config is not None:
            (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        return directory / name

    return write
