"""The small victims of `benchmarks/attacks.py`: one network trained plainly, one adversarially, on Fashion-MNIST.

    python benchmarks/fashion_mnist/net.py     # trains both again (needs Debian's dataset-fashion-mnist)

The committed weights are what this command wrote (seed 0, one thread); `reached` in net.json says how good they are."""

from __future__ import annotations

import gzip
import json
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.objectives import CrossEntropy
from robustree.taxonomy import Cut
from robustree.tree_model import Scores

HERE = Path(__file__).parent
DATA = Path("/usr/share/datasets/fashion-mnist")
LEAVES = Cut("", 0, tuple(range(10)), tuple(range(10)))
# T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot -> tops, trouser, footwear, bag
GROUPS = Cut("kind", 1, (10, 11, 12, 13), (0, 1, 0, 0, 0, 2, 0, 2, 3, 2))
EPS, EPOCHS, BATCH, LR = 0.1, 4, 100, 1e-3


def network() -> nn.Sequential:
    """Three convolutions and two linear layers, 135,254 parameters; pixels in [0, 1] (B, 1, 28, 28) to 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 16, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def trained(name: str) -> nn.Sequential:
    """The committed network "at" (adversarially trained at eps 0.1) or "std"."""
    net = network()
    net.load_state_dict(load_file(HERE / f"{name}.safetensors"))
    return net.eval().requires_grad_(False)


def images_of(split: str) -> tuple[Tensor, Tensor]:
    """Pixels (N, 1, 28, 28) in [0, 1] and labels of "train" or "t10k".

    Raises:
        FileNotFoundError: Debian's package dataset-fashion-mnist is not installed.
    """
    with gzip.open(DATA / f"{split}-images-idx3-ubyte.gz") as file:
        pixels = torch.frombuffer(bytearray(file.read()[16:]), dtype=torch.uint8)
    with gzip.open(DATA / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = torch.frombuffer(bytearray(file.read()[8:]), dtype=torch.uint8)
    return pixels.view(-1, 1, 28, 28).float() / 255, labels.long()


def train(name: str) -> dict[str, object]:
    """Train, write the weights, and return what was reached."""
    torch.manual_seed(0)
    started, net = time.monotonic(), network()
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    pixels, labels = images_of("train")
    generator = torch.Generator().manual_seed(0)
    attack, threat = PGD(steps=5, step_size=0.5, best=False), Threat(eps=EPS)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(pixels), generator=generator).split(BATCH):
            x, y = pixels[index], labels[index]
            if name == "at":
                net.requires_grad_(False)
                (x,) = attack.joint(lambda z: Scores(z, z, net(z)), [x], CrossEntropy(LEAVES, y), [threat],
                                    generator=generator)  # fmt: skip
                net.requires_grad_(True)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        print(f"{name} epoch {epoch + 1}/{EPOCHS}, {time.monotonic() - started:.0f} s", flush=True)
    save_file(net.state_dict(), HERE / f"{name}.safetensors")
    pixels, labels = images_of("t10k")
    with torch.no_grad():
        clean = float((net(pixels).argmax(1) == labels).float().mean())
    return {"clean_test_accuracy": round(clean, 4), "seconds": round(time.monotonic() - started)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    reached = {name: train(name) for name in ("std", "at")}
    protocol = {"eps": EPS, "epochs": EPOCHS, "batch": BATCH, "lr": LR, "seed": 0, "attack": "PGD-5, step 0.5 eps"}
    machine = {"machine": platform.machine(), "threads": 1, "torch": torch.__version__}
    (HERE / "net.json").write_text(json.dumps({"reached": reached, "protocol": protocol, **machine}, indent=1) + "\n")
