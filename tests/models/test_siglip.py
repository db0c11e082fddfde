"""SigLIP and SigLIP 2 of one resolution: any size and patch, and text as they were trained on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from robustree.models import load
from robustree.models.huggingface import siglip_tokens
from tests.models.conftest import write_siglip


@pytest.fixture(params=["siglip", "siglip2"])
def directory(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_directory")


@pytest.mark.parametrize(
    ("patch", "side"), [(14, 224), (14, 384), (16, 224), (16, 256), (16, 384), (16, 512), (32, 256)]
)
def test_every_patch_and_resolution(siglip_directory: Path, tmp_path: Path, patch: int, side: int) -> None:
    from transformers import SiglipModel

    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(siglip_directory / name, tmp_path / name)
    write_siglip(tmp_path, image_size=side, patch_size=patch)
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels | {"size": {"height": side, "width": side}}))
    model, theirs = load(str(tmp_path)), SiglipModel.from_pretrained(tmp_path)
    found = model.image_encoder.preprocessing
    assert (found.resolution, found.crop, found.interpolation) == (side, False, "bilinear")
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=2 * images - 1).pooler_output
        torch.testing.assert_close(model.image_encoder(images), expected, rtol=0, atol=1e-6)
        assert model.image_encoder(torch.rand(1, 3, 40, 30)).shape == (1, 32)


def test_text_is_lower_case_with_an_end_and_filled_up_on_the_right(directory: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    rows = siglip_tokens(tokenizer, ["a photo of a dog", "A Photo of a DOG", "word " * 50], 24)
    assert rows.shape == (3, 24) and torch.equal(rows[0], rows[1])
    words = tokenizer.encode("a photo of a dog", add_special_tokens=False)
    end, filler = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert rows[0].tolist() == [*words, end, *[filler] * (23 - len(words))]
    assert rows[2, -1] == end and end not in rows[2, :-1]


def test_text_embeddings_are_those_of_transformers_on_these_tokens(directory: Path) -> None:
    from transformers import AutoTokenizer, SiglipModel

    prompts = ["a photo of a dog", "A Cat"]
    model, tokens = load(str(directory)), siglip_tokens(AutoTokenizer.from_pretrained(directory), prompts, 24)
    with torch.no_grad():
        expected = SiglipModel.from_pretrained(directory).get_text_features(input_ids=tokens).pooler_output
        found = model.text_projection(model.text_features(prompts))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_siglip_s_own_tokenizer_gives_these_tokens(siglip_directory: Path) -> None:
    """It drops punctuation too, as SigLIP (but not SigLIP 2) was trained."""
    from transformers import AutoTokenizer

    tokenizer, prompts = AutoTokenizer.from_pretrained(siglip_directory), ["A Photo, of a dog!", "word " * 50]
    theirs = tokenizer(prompts, padding="max_length", truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    assert torch.equal(siglip_tokens(tokenizer, prompts, 24), theirs)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(siglip2_directory: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(siglip2_directory, tmp_path / "copy")
    write_siglip(directory, vocabulary=50)
    with pytest.raises(ValueError, match=r"'<pad>' to fill up; the model has 50 token embeddings: add the tokenizer"):
        load(str(directory))


def test_a_missing_package_is_named(siglip_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def missing(*_: object, **__: object) -> None:
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library\nand more lines")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(
        ValueError, match=r"SiglipTokenizer requires the SentencePiece library\): pip install 'robustree"
    ):
        load(str(siglip_directory))
