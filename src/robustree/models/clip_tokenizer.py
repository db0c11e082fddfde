"""CLIP's own tokenizer from the merges that ship with this package, for weights that come without one.

Byte-level BPE of 49,408 tokens: 256 bytes, the same at the end of a word, one token a merge, start and end. The merges
are OpenAI's (MIT, `clip_bpe/LICENSE`)."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any

VOCABULARY = 49408
CONTEXT = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def clip_tokenizer() -> Any:
    """The tokenizer of every CLIP by OpenAI and of open_clip's models that name no other, as a transformers one.

    open_clip mends mis-encoded text (ftfy) and HTML entities before; this one, as that of transformers, does not.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    packed = files("robustree.models").joinpath("clip_bpe", "merges.txt.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode("utf-8").splitlines()]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # by code point: CLIP's order of the 256 bytes
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *("".join(pair) for pair in merges), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)  # type: ignore[arg-type]
