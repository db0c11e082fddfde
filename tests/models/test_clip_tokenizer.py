"""The tokenizer that ships: CLIP's ids, as published."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from robustree.models.clip_tokenizer import VOCABULARY, clip_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello World!", [3306, 1002, 256]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a diagram", [320, 22697]),
        ("", []),
    ],
)
def test_known_ids(tokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer(text)["input_ids"] == [49406, *ids, 49407]


def test_every_word_of_every_script_comes_back(tokenizer) -> None:
    text = "naïve café, 猫 and кот: 3½ 🐱 don't"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).replace(" ", "") == text.replace(
        " ", ""
    )


def test_its_size_and_its_end_are_clip_s(tokenizer, tmp_path: Path) -> None:
    assert len(tokenizer) == VOCABULARY and tokenizer.model_max_length == 77
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == VOCABULARY - 1
    long = tokenizer("dog " * 200, truncation=True)["input_ids"]
    assert len(long) == 77 and long[-1] == VOCABULARY - 1
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("A kit fox's den, 12 m below")["input_ids"] == tokenizer("a kit fox's den, 12 m  below")["input_ids"]
