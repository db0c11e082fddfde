"""The built-in model: a CLIP small enough for a laptop core, from a small config of the same transformers classes.

48-pixel images in 16 patches, 4 vision layers of width 192, 2 text layers of width 128, 128 shared dimensions: 2.2 M
parameters. `recipes/nano.py` trains it and writes the directory `nano/` beside this file, which `load("nano")` opens
like any other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from robustree.models.encoder import Preprocessing

if TYPE_CHECKING:
    from transformers import CLIPModel

RESOLUTION = 48
PREPROCESSING = Preprocessing(resolution=RESOLUTION, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_START, _END = "<|startoftext|>", "<|endoftext|>"
_LONGEST = 24


def build_tokenizer(corpus: Iterable[str], *, vocabulary: int = 1024) -> Any:
    """A byte-level BPE tokenizer learnt from `corpus`; any other text falls back to single bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=None))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sorted(corpus), trainer)
    start, end = core.token_to_id(_START), core.token_to_id(_END)
    core.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, start), (_END, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=_START, eos_token=_END, pad_token=_END, model_max_length=_LONGEST
    )


def build_nano(tokenizer: Any, *, patch_size: int = 12) -> CLIPModel:
    """The untrained model for a tokenizer; seed torch before, to have the same weights again.

    Photographs need smaller patches than drawings; 8 pixels cost twice as much."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": _LONGEST,
        "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": RESOLUTION,
        "patch_size": patch_size,
        "hidden_act": "gelu",
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
