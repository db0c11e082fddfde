"""A tiny random CLIP, six classes in one tree of two levels, and two coloured images a class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from robustree.cli import main
from robustree.models import Preprocessing, adapt
from robustree.models.nano import build_tokenizer

COLOURS = {
    "fox": (230, 110, 30),
    "cat": (120, 120, 120),
    "owl": (140, 90, 50),
    "pear": (160, 200, 60),
    "plum": (90, 40, 120),
    "bread": (210, 170, 110),
}
TREE = {"animal": {"mammal": ["fox", "cat"], "bird": ["owl"]}, "food": {"fruit": ["pear", "plum"], "dish": ["bread"]}}
SIDE = 16


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*words: object) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `clip/` (a model), `tree.json`, `other.json`, `images/<class>/` and `plain/`."""
    root = tmp_path_factory.mktemp("house")
    (root / "tree.json").write_text(json.dumps({"name": "things", "tree": TREE}))
    other = {"edible": ["pear", "plum", "bread"], "alive": ["fox", "cat", "owl"]}
    (root / "other.json").write_text(json.dumps({"name": "use", "tree": other}))
    generator = torch.Generator().manual_seed(0)
    (root / "plain").mkdir()
    for name, colour in COLOURS.items():
        (root / "images" / name).mkdir(parents=True)
        for number in range(2):
            noise = torch.randint(-20, 21, (20, 24 + 4 * number, 3), generator=generator)
            pixels = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8)
            image = Image.fromarray(pixels.numpy())
            image.save(root / "images" / name / f"{number}.png")
            if number == 0:
                image.save(root / "plain" / (f"{name}.jpg" if name == "owl" else f"{name}.png"))
    _build_clip(root / "clip")
    return root


def _build_clip(directory: Path) -> None:
    tokenizer = build_tokenizer([*COLOURS, "animal", "mammal", "bird", "food", "fruit", "dish", "this is a photo of a"])
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = shared | special | {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    vision = shared | {"image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    preprocessing = Preprocessing(resolution=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    directory.mkdir()
    adapt(model, tokenizer, preprocessing=preprocessing, name="tiny").save(directory)


@pytest.fixture(scope="session")
def hardened(house: Path) -> Path:
    """A checkpoint of the hierarchical method after two steps."""
    words = ["harden", "hierarchical", "--model", house / "clip", "--data", house / "images", "--steps", "2"]
    words += ["--trees", house / "tree.json", "--batch-size", "4", "--output", house / "hardened", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    return house / "hardened"


@pytest.fixture
def hardening(house: Path, tmp_path: Path) -> list[object]:
    """The words of a short hardening run into `tmp_path/run`; a method goes first."""
    words: list[object] = ["--model", house / "clip", "--data", house / "images", "--trees", house / "tree.json"]
    return [*words, "--batch-size", 4, "--steps", 4, "--output", tmp_path / "run", "--device", "cpu"]


@pytest.fixture
def auditing(house: Path, tmp_path: Path) -> list[object]:
    """The words of a short audit into `tmp_path/audit`, without checks; models go first."""
    words: list[object] = ["--data", house / "images", "--output", tmp_path / "audit", "--threat.eps", "8/255"]
    return [*words, "--pgd.steps", 2, "--batch-size", 8, "--gallery", 2, "--no-checks", "--device", "cpu"]
