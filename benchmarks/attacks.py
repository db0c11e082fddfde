"""The attacks beside AutoAttack's own implementation, on the same networks and images.

    python benchmarks/attacks.py run            # all rows of five seeds (about 50 minutes of one core)
    python benchmarks/attacks.py run --shard 0/2 &  python benchmarks/attacks.py run --shard 1/2
    python benchmarks/attacks.py table          # attacks.md from attacks.json

The oracle is `pyautoattack` 0.2.0 (the numerics of fra31/auto-attack a392200), which is in the [test] extra. Every row:
robust accuracy over the first 500 test images, forwards and backwards an image, CPU seconds of the process. `early`:
as AutoAttack here runs its stages, with runs that cannot succeed ended early; `whole`: every step of the authors."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from fashion_mnist.net import LEAVES, images_of, trained
from pages import put
from torch import Tensor, nn

from robustree.attacks import AutoAttack, Threat
from robustree.objectives import Loss, Margin
from robustree.tree_model import Scores
from robustree.writing import write_whole

HERE = Path(__file__).parent
MARK = "<!-- table -->\n"
RESULT, PART = HERE / "attacks.json", HERE / "runs" / "attacks"
IMAGES, OFFICIAL_BATCH, BATCH, SEEDS = 500, 250, 125, range(5)
VICTIMS = {"at": 0.1, "std": 0.03}
COMPONENTS = ("apgd-ce", "apgd-t", "fab-t", "square", "standard")


@dataclass
class Counted:
    """A network that counts the images it sees, and those of which a gradient is taken."""

    net: nn.Module
    forwards: int = 0
    backwards: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.backwards += len(x) if x.requires_grad else 0
        return self.net(x)


def early(name: str, f: Counted, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Adversarial images of this library, as its cascade makes them."""
    return _native(AutoAttack(version="standard"), name, f, x, y, eps, seed)


def whole(name: str, f: Counted, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Adversarial images of this library, every run to its end."""
    return _native(AutoAttack(version="standard", optimism=None), name, f, x, y, eps, seed)


def _native(cascade: AutoAttack, name: str, f: Counted, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    stages: dict[str, tuple[Any, Loss]] = {stage.name: (stage.attack, stage.loss) for stage in cascade.stages}
    attack, loss = stages.get(name, (cascade, None))
    decision = Margin(LEAVES, y)

    def scores(z: Tensor) -> Scores:
        logits = f(z)
        return Scores(logits, logits, logits)

    objective = decision if loss is None else decision.under(loss)
    generator = torch.Generator().manual_seed(seed)
    return attack(scores, x, objective, Threat(eps=eps), generator=generator, batch_size=BATCH)


def official(name: str, f: Counted, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Adversarial images of the reference."""
    from pyautoattack import AutoAttack as Reference

    reference = Reference(f, norm="Linf", eps=eps, seed=seed, version="standard", device="cpu")  # type: ignore[arg-type]
    if name == "standard":
        made, _ = reference.run_standard_evaluation(x, y, batch_size=OFFICIAL_BATCH)
        return made
    attack = {
        "apgd-ce": reference.apgd,
        "apgd-t": reference.apgd_targeted,
        "fab-t": reference.fab,
        "square": reference.square,
    }[name]
    attack.seed, attack.n_restarts = seed, 1
    if name == "apgd-ce":
        attack.loss = "ce"
    if name == "fab-t":
        attack.targeted = True
    pairs = zip(x.split(OFFICIAL_BATCH), y.split(OFFICIAL_BATCH), strict=True)
    return torch.cat([attack.perturb(a, b) for a, b in pairs])


def measure(side: Callable[..., Tensor], name: str, victim: str, seed: int) -> dict[str, Any]:
    """One row."""
    net, eps = trained(victim), VICTIMS[victim]
    pixels, labels = images_of("t10k")
    x, y = pixels[:IMAGES], labels[:IMAGES]
    f = Counted(net)
    started = time.process_time()
    made = side(name, f, x, y, eps, seed)
    seconds = time.process_time() - started
    with torch.no_grad():
        clean, robust = net(x).argmax(1) == y, net(made).argmax(1) == y
    inside = Threat(eps=eps).contains(made, x, tolerance=1e-6)
    robust = torch.where(inside, robust, clean)  # an image outside the threat breaks nothing
    return {
        "side": side.__name__,
        "attack": name,
        "victim": victim,
        "seed": seed,
        "robust": round(float((clean & robust).float().mean()), 4),
        "clean": round(float(clean.float().mean()), 4),
        "left_the_threat": int((~inside).sum()),
        "forwards": round(f.forwards / IMAGES, 1),
        "backwards": round(f.backwards / IMAGES, 1),
        "cpu_seconds": round(seconds, 2),
        "standing": (clean & robust).nonzero()[:, 0].tolist(),
    }


def plan() -> Iterator[tuple[str, str, int, Callable[..., Tensor]]]:
    """Every row: the sides of a row come one after the other, so that the machine is in the same state."""
    for seed in SEEDS:
        for name in COMPONENTS:
            for victim in VICTIMS:
                if victim == "at" or name in ("apgd-ce", "apgd-t"):
                    for side in (early, whole, official):
                        yield victim, name, seed, side


def run(shard: str) -> None:
    """Measure what is missing."""
    number, count = map(int, shard.split("/"))
    PART.mkdir(parents=True, exist_ok=True)
    for position, (victim, name, seed, side) in enumerate(plan()):
        part = PART / f"{victim}-{name}-{seed}-{side.__name__}.json"
        if position // 3 % count != number or part.exists():
            continue
        row = measure(side, name, victim, seed)
        part.write_text(json.dumps(row) + "\n")
        print({k: v for k, v in row.items() if k != "standing"}, flush=True)


def table() -> None:
    """Collect the parts, if there are any, into attacks.json, and write attacks.md from it."""
    rows = [json.loads(part.read_text()) for part in sorted(PART.glob("*.json"))]
    if rows:
        write_whole(RESULT, json.dumps(_record(rows), indent=1) + "\n")
    else:
        rows = json.loads(RESULT.read_text())["rows"]
    lines = [
        "| victim | attack | robust: early | whole | reference | images that differ: early, whole, reference "
        "| forwards: early | whole | reference | CPU seconds: early | whole | reference |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for victim in VICTIMS:
        for name in COMPONENTS:
            sides = [
                [r for r in rows if (r["victim"], r["attack"], r["side"]) == (victim, name, side)]
                for side in ("early", "whole", "official")
            ]
            if all(sides):
                lines.append(_line(victim, name, sides))
    page = HERE / "attacks.md"
    put(page, "\n".join(lines) + "\n", MARK)
    print("\n".join(lines))


def _record(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What attacks.json says about rows that were measured on this machine."""
    return {
        "protocol": {
            "images": f"the first {IMAGES} test images of Fashion-MNIST",
            "victims": VICTIMS,
            "norm": "linf",
            "batch": {"early": BATCH, "whole": BATCH, "official": OFFICIAL_BATCH},
        },
        "versions": {"torch": torch.__version__, "pyautoattack": "0.2.0"},
        "machine": f"{platform.machine()}, one thread",
        "command": "python benchmarks/attacks.py run",
        "rows": rows,
    }


def _line(victim: str, name: str, sides: list[list[dict[str, Any]]]) -> str:
    theirs = sides[-1]

    def robust(rows: list[dict[str, Any]]) -> str:
        values = [100 * row["robust"] for row in rows]
        return f"{mean(values):.2f} ± {stdev(values):.2f}"

    def differing(rows: list[dict[str, Any]]) -> str:
        return f"{mean(len(set(a['standing']) ^ set(b['standing'])) for a in rows for b in theirs if a is not b):.1f}"

    def cost(what: str) -> list[str]:
        of = [mean(row[what] for row in rows) for rows in sides]
        return [f"{value:.0f} ({value / of[-1]:.2f})" for value in of[:-1]] + [f"{of[-1]:.0f}"]

    cells = [
        victim,
        name,
        *map(robust, sides),
        ", ".join(map(differing, sides)),
        *cost("forwards"),
        *cost("cpu_seconds"),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--shard", default="0/1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(arguments.shard) if arguments.what == "run" else table()
