"""One thread for every test, and the smallest vision-language model over the smallest forest that is ragged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustree.geometry import Space
from robustree.models.encoder import ImageEncoder, Preprocessing, VisionLanguageModel
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.tree_model import Depths, TreeModel, build_tree_model

LEAVES = ("dog", "cat", "fox", "hen", "owl", "bread", "rye", "pear", "fig")
KIND = TreeSource(
    "kind",
    {
        "animal": {"mammal": ["dog", "cat", "fox"], "bird": ["hen", "owl"]},
        "food": {"baked": ["bread", "rye"], "fruit": ["pear", "fig"]},
    },
)
# Ragged: dog and hen stand for themselves at all three levels, cat at two, and wild is the same node at all three.
HOME = TreeSource(
    "home",
    [
        "dog",
        "hen",
        {"kept": ["cat", {"stored": {"larder": ["pear", "bread"], "bin": ["fig", "rye"]}}]},
        {"wild": ["fox", "owl"]},
    ],
    cut_sizes=(2, 4, 6),
)
SIDE = 6
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, which nothing above does


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def two_trees() -> Forest:
    """Nine leaves under the uniform tree "kind" (two levels) and the ragged tree "home" (three levels)."""
    return build_forest(LEAVES, [KIND, HOME])


@pytest.fixture(scope="session")
def make_tiny_clip() -> Callable[[int], VisionLanguageModel]:
    """seed -> random towers on 6-pixel images, with 12 text features and 8 shared dimensions."""

    def make(seed: int) -> VisionLanguageModel:
        draw = torch.Generator().manual_seed(seed)
        tower = _Tower()
        projection, text_projection = nn.Linear(16, 8, bias=False), nn.Linear(12, 8, bias=False)
        with torch.no_grad():
            for weight in (tower.layer.weight, projection.weight, text_projection.weight):
                weight.copy_(torch.randn(weight.shape, generator=draw) / weight.shape[1] ** 0.5)

        def text_features(prompts: Sequence[str]) -> Tensor:
            seeds = [seed + sum(map(ord, prompt)) * len(prompt) for prompt in prompts]
            return torch.stack([torch.randn(12, generator=torch.Generator().manual_seed(s)) for s in seeds])

        def save(directory: Path) -> None:
            raise AssertionError(f"nothing is saved to {directory} in these tests")

        fit = Preprocessing(resolution=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        encoder = ImageEncoder(tower, projection, fit)
        return VisionLanguageModel(
            name="tiny",
            image_encoder=encoder,
            text_features=text_features,
            text_projection=text_projection,
            logit_scale=100.0,
            save=save,
        )

    return make


@pytest.fixture(scope="session")
def tiny_images() -> Callable[[int], Tensor]:
    """count -> the same images (count, 3, 6, 6) in [0, 1] every time."""
    return lambda count: torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="session")
def make_tree_model(
    make_tiny_clip: Callable[[int], VisionLanguageModel], tiny_images: Callable[[int], Tensor], two_trees: Forest
) -> Callable[..., TreeModel]:
    """space, forest=, seed= -> a new `TreeModel` of the tiny model."""

    def make(space: Space, *, forest: Forest = two_trees, seed: int = 0) -> TreeModel:
        ladder = Depths(
            image=1.0, leaf=1.2, root=0.6, limit=3.0
        )  # a harder case than the default, where all texts start equally deep
        return build_tree_model(make_tiny_clip(seed), forest, images=tiny_images(16), space=space, depths=ladder)

    return make


@pytest.fixture(scope="session")
def clip_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random transformers CLIPModel as it lies on disk: 16-pixel images, two layers, 24 shared dimensions."""
    from transformers import CLIPConfig, CLIPModel

    from robustree.models.nano import build_tokenizer

    tokenizer = build_tokenizer(["a photo of a dog", "a drawing of a cat"], vocabulary=300)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = tower | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    vision = tower | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class _Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * SIDE * SIDE, 16, bias=False)

    def forward(self, pixel_values: Tensor) -> _Output:
        return _Output(torch.tanh(self.layer(pixel_values.flatten(1))))


class _Output:
    def __init__(self, pooler_output: Tensor):
        self.pooler_output = pooler_output
