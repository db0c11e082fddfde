"""What `load` makes of a directory, held against transformers' own answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustree.models import Preprocessing, VisionLanguageModel, load
from robustree.models.encoder import fit
from robustree.models.loading import read
from robustree.models.openclip_format import write_openclip

PROMPTS = ["a photo of a dog", "a cat", "a much longer sentence, with commas, about a very small mouse"]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(params=["clip", "siglip"])
def directory(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_directory")


@pytest.fixture
def theirs(directory: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(directory)


def _images(count: int, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def _texts(model: VisionLanguageModel, prompts: Sequence[str]) -> Tensor:
    with torch.no_grad():
        return model.text_projection(model.text_features(prompts))


def test_image_embeddings_are_those_of_transformers(directory: Path, theirs: Any) -> None:
    model, images = load(str(directory)), _images(5)
    clip = theirs.config.model_type == "clip"
    mean = torch.tensor(CLIP_MEAN if clip else (0.5, 0.5, 0.5))[:, None, None]
    std = torch.tensor(CLIP_STD if clip else (0.5, 0.5, 0.5))[:, None, None]
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=(images - mean) / std).pooler_output
        torch.testing.assert_close(model.image_encoder(images), expected, rtol=0, atol=1e-6)


def test_text_embeddings_are_those_of_transformers(directory: Path, theirs: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    clip = theirs.config.model_type == "clip"
    tokens = tokenizer(
        PROMPTS, return_tensors="pt", padding=True if clip else "max_length", max_length=24, truncation=True
    )
    inputs = {name: tokens[name] for name in (("input_ids", "attention_mask") if clip else ("input_ids",))}
    with torch.no_grad():
        expected = theirs.get_text_features(**inputs).pooler_output
    torch.testing.assert_close(_texts(load(str(directory)), PROMPTS), expected, rtol=0, atol=1e-6)


def test_the_logit_scale_is_the_exponential_of_the_stored_one(directory: Path, theirs: Any) -> None:
    assert load(str(directory)).logit_scale == pytest.approx(float(theirs.logit_scale.detach().exp()), rel=1e-6)


def test_many_prompts_in_batches_equal_the_prompts_one_by_one(directory: Path) -> None:
    model = load(str(directory))
    prompts = [" ".join(["word"] * (number % 17)) + f" {number}" for number in range(520)]
    together = model.text_features(prompts)
    assert together.shape == (520, 32)
    for number in (0, 255, 256, 257, 511, 512, 519):  # both sides of each batch's end
        torch.testing.assert_close(model.text_features([prompts[number]])[0], together[number], rtol=0, atol=1e-5)


def test_a_prompt_beyond_the_context_is_cut(directory: Path) -> None:
    model = load(str(directory))
    cut, longer = model.text_features(["dog " * 50, "dog " * 500])
    assert cut.isfinite().all()
    torch.testing.assert_close(cut, longer, rtol=0, atol=1e-6)


def test_every_image_is_embedded_as_if_it_were_alone(directory: Path) -> None:
    model, images = load(str(directory)), _images(4, side=23)
    with torch.no_grad():
        together = model.image_encoder(images)
        alone = torch.cat([model.image_encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_saved_model_opens_in_transformers_with_the_same_embeddings(directory: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel, SiglipModel

    model, images = load(str(directory)), _images(3)
    with torch.no_grad():
        for parameter in model.image_encoder.parameters():
            parameter.add_(0.01)  # as training would
    model.save(tmp_path)
    kind = CLIPModel if model.image_encoder.preprocessing.crop else SiglipModel
    theirs, preprocessing = kind.from_pretrained(tmp_path), model.image_encoder.preprocessing
    pixels = (images - model.image_encoder.mean) / model.image_encoder.std
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=pixels).pooler_output
        assert torch.equal(model.image_encoder(images), expected)
    assert AutoTokenizer.from_pretrained(tmp_path)("dog")["input_ids"]
    assert load(str(tmp_path)).image_encoder.preprocessing == preprocessing


def test_a_later_round_trip_is_bitwise(directory: Path, tmp_path: Path) -> None:
    """The first ones may complete the tokenizer's settings."""
    for number, source in enumerate((directory, tmp_path / "0", tmp_path / "1")):
        (tmp_path / str(number)).mkdir()
        load(str(source)).save(tmp_path / str(number))
    for name in sorted(file.name for file in (tmp_path / "1").iterdir()):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_transformers_reads_the_saved_preprocessing_as_ours(directory: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    model = load(str(directory))
    model.save(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    array = np.random.default_rng(0).integers(0, 256, (29, 41, 3), dtype=np.uint8)
    theirs = processor(Image.fromarray(array), return_tensors="pt")["pixel_values"]
    ours = fit(torch.from_numpy(array).permute(2, 0, 1)[None] / 255, model.image_encoder.preprocessing)
    difference = (theirs * model.image_encoder.std + model.image_encoder.mean - ours).abs().max()
    assert difference <= 2 / 255


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_the_preprocessing_is_read_where_transformers_writes_it(clip_copy: Callable[..., Path], name: str) -> None:
    """transformers 5 puts the image processor of a whole processor into processor_config.json."""
    directory = clip_copy()
    record = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_center_crop": False, "resample": 2}
    content = record if name.startswith("pre") else {"image_processor": record, "processor_class": "CLIPProcessor"}
    (directory / name).write_text(json.dumps(content))
    assert load(str(directory)).image_encoder.preprocessing == Preprocessing(
        resolution=16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=False, interpolation="bilinear"
    )


def test_weights_without_safetensors_are_read_by_the_weights_only_reader(
    clip_directory: Path, clip_copy: Callable[..., Path]
) -> None:
    from transformers import CLIPModel

    directory = clip_copy("model.safetensors")
    torch.save(CLIPModel.from_pretrained(clip_directory).state_dict(), directory / "pytorch_model.bin")
    with torch.no_grad():
        ours, expected = (load(str(where)).image_encoder(_images(2)) for where in (directory, clip_directory))
    assert torch.equal(ours, expected)


def test_the_built_in_model_loads_like_any_other() -> None:
    model = load("nano")
    with torch.no_grad():
        embeddings = model.image_encoder(_images(2, side=48))
    assert embeddings.shape == _texts(model, PROMPTS[:2]).shape == (2, 128)
    assert embeddings.isfinite().all()


def test_a_config_of_something_else_beside_open_clip_s_is_passed_over(clip_directory: Path, tmp_path: Path) -> None:
    write_openclip(tmp_path, read(str(clip_directory)))
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    with torch.no_grad():
        ours, expected = (load(str(where)).image_encoder(_images(2)) for where in (tmp_path, clip_directory))
    assert torch.equal(ours, expected)
