"""What each way to compute the same step brings: one TeCoA step of ViT-B/32, beside the step as it is.

    python benchmarks/step_options.py                 # writes step_options.json; about three minutes on 2 cores

Every round makes one step each way, one after the other, and one update by each AdamW. Largest differences are those
of the loss's gradients, over the largest gradient."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from provenance import machine
from step import CLOCKS, Setting, World
from step_memory import extra_bytes
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.geometry import Sphere
from robustree.methods import TeCoA
from robustree.training import training_step
from robustree.training.acceleration import accelerated
from robustree.training.cost import timed
from robustree.training.loop import select_trained
from robustree.tree_model import TreeModel
from robustree.writing import write_whole

WAYS = (
    "as it is",
    "eager attention",
    "channels last",
    "bf16",
    "bf16, eager attention",
    "activation checkpointing",
    "compiled",
)


@contextmanager
def computed(way: str, world: World, model: TreeModel) -> Iterator[None]:
    """The shared encoder, made to compute in one of the `WAYS`."""
    patches = world.clip.vision_model.embeddings.patch_embedding
    model.precision = "bf16" if "bf16" in way else "fp32"
    if "eager attention" in way:
        world.clip.set_attn_implementation("eager")
    if way == "channels last":
        patches.to(memory_format=torch.channels_last)
    options = {"compiled": way == "compiled", "activation_checkpointing": way == "activation checkpointing"}
    with accelerated(model.image_encoder, **options):
        yield
    world.clip.set_attn_implementation("sdpa")
    patches.to(memory_format=torch.contiguous_format)


def optimisers(parameters: list[nn.Parameter]) -> dict[str, Callable[[], object]]:
    """One update of all weights by each implementation of AdamW, at a learning rate that moves nothing."""
    kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for loop": {"foreach": False}}
    return {name: torch.optim.AdamW(parameters, lr=1e-12, **kind).step for name, kind in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="as in step.py")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    device: torch.device = options.device
    clock = CLOCKS[options.clock]
    world = World(
        Setting(
            model="ViT-B/32",
            batch_size=options.batch_size,
            attack_steps=2,
            rounds=options.rounds,
            published_every=1,
            device=device,
            precision="fp32",
            compile=False,
            activation_checkpointing=False,
            clock=options.clock,
        )
    )
    model = world.tree_model(world.forest.select(()), Sphere())
    select_trained(model, text=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    attack = PGD(steps=2, step_size=0.5, best=False)

    def gradients() -> list[Tensor]:
        rest = (TeCoA(), attack, Threat(eps=4 / 255), world.batch.images, world.batch.leaves)
        loss, _ = training_step(model, model, model, *rest, torch.Generator().manual_seed(0))
        return list(torch.autograd.grad(loss, trained))

    plain = gradients()
    largest = max(float(value.abs().max()) for value in plain)
    rows: dict[str, dict[str, Any]] = {}
    for way in options.ways:
        with computed(way, world, model):
            found: list[Tensor] = []
            first = timed(lambda found=found: found.extend(gradients()), device, clock)
            difference = max(float((a - b).abs().max()) for a, b in zip(found, plain, strict=True)) / largest
            del found
            held = extra_bytes(gradients, device)
            rows[way] = {"first": first, "difference": difference, "bytes": held, "seconds": []}
    updates: dict[str, list[float]] = {}
    for parameter, gradient in zip(trained, plain, strict=True):
        parameter.grad = gradient
    steps = optimisers(trained)
    for step in steps.values():
        step()
    for number in range(options.rounds):
        for way in options.ways:
            with computed(way, world, model):
                rows[way]["seconds"].append(timed(gradients, device, clock))
        for name, step in steps.items():
            updates.setdefault(name, []).append(timed(step, device, clock))
        print(f"round {number + 1} of {options.rounds}", flush=True)
    content = {
        "command": f"python benchmarks/step_options.py --batch-size {options.batch_size} --rounds {options.rounds}",
        "seed": 0,
        "machine": machine(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": options.batch_size,
        "clock": options.clock,
        "ways": rows,
        "adamw": updates,
    }
    write_whole(Path(__file__).with_name("step_options.json"), json.dumps(content, indent=1) + "\n")
    for name, row in rows.items():
        seconds = statistics.median(row["seconds"])
        print(f"{name:28} {seconds:7.2f} s  {row['bytes'] / 1e9:5.2f} GB  {row['difference']:.1e}")
    for name, seconds in updates.items():
        print(f"AdamW {name:22} {statistics.median(seconds):7.3f} s")


if __name__ == "__main__":
    main()
