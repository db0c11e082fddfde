"""What the levels of trees cost an audit: AutoAttack `fast` at the leaf and at all 12 levels of the emoji.

    robustree harden tecoa --steps 150 --lr 1e-3 --output benchmarks/runs/audit-tecoa
    python benchmarks/audit.py MODEL SEED IMAGES          # plain or tecoa; every row that there is goes into the table
    for part in standing table; do python benchmarks/audit.py $part; done          # audit.json and audit.md

Four ways of going through the levels, on the built-in model and on one hardened with TeCoA: `alone`;
`shared` (`--share`); `warm`, where what is left then also starts from the best image that other levels have found;
`short`, where superclass levels skip the aimed runs of images whose first run could not succeed (`Foresight`)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pages import put
from provenance import machine
from torch import Tensor

from robustree.attacks import AutoAttack, ImageNoise, Threat
from robustree.attacks import search as search_module
from robustree.auditing.audit import image_noise
from robustree.auditing.plan import LevelAttack, Plan, Run, level_objective
from robustree.auditing.sharing import attack_levels, judged
from robustree.checkpoint import load_checkpoint
from robustree.data import AuditImages, emoji
from robustree.models import load
from robustree.taxonomy import Forest
from robustree.tree_model import Scores, TreeModel, build_tree_model
from robustree.writing import write_whole

HERE = Path(__file__).parent
BACKWARD = 1.5
"""A gradient costs this many forward passes on top of its own."""
ATTACK = AutoAttack(version="fast")


class Counted:
    """A model that counts the passes of images through it, a gradient as 2.5 of them."""

    def __init__(self, model: TreeModel) -> None:
        self.model, self.passes, self.started = model, 0.0, time.process_time()

    def __call__(self, images: Tensor) -> Scores:
        self.passes += len(images) * (1 + BACKWARD * images.requires_grad)
        return self.model(images)

    def cost(self) -> dict[str, float]:
        return {"passes": self.passes, "cpu_seconds": time.process_time() - self.started}


class Case:
    """Some images, a model, and everything that the ways through the levels need."""

    def __init__(self, model: TreeModel, images: AuditImages, forest: Forest, seed: int) -> None:
        self.model, self.forest = model, forest
        self.pixels, self.leaves = images.pixels[:], images.leaves
        self.plan = Plan(
            threat=Threat(eps=4 / 255), attacks=(LevelAttack(ATTACK, None),), all_levels=None, share=True, seed=seed
        )
        self.runs = [run for run in self.plan.runs(forest) if run.attack]
        self.noises = [image_noise(images.ids, seed, run, self.pixels.device) for run in self.runs]

    def decision(self, run: Run) -> Any:
        return level_objective(self.forest, self.leaves, run.attacked, None)

    def alone(self) -> dict[str, Any]:
        """Every level by itself, the cascade's two stages one after the other; the second one in two parts, of which
        `short` would skip the first: images whose first run was given up."""
        levels = []
        for run, noise in zip(self.runs, self.noises, strict=True):
            decision, model, skipped = self.decision(run), Counted(self.model), Counted(self.model)
            falls = decision.lead(judged(model, self.pixels, self.plan)) > 0
            right = (~falls).nonzero()[:, 0]
            with GivenUp() as given_up:
                falls[right] = self.stage(model, run, noise, 1, right)
            hopeless = torch.zeros_like(falls)
            hopeless[right[torch.tensor(sorted(given_up.images), dtype=torch.int64)]] = True
            left, short = (~falls & ~hopeless).nonzero()[:, 0], (~falls & hopeless).nonzero()[:, 0]
            falls[left] = self.stage(model, run, noise, 2, left)
            late = self.stage(skipped, run, noise, 2, short)
            falls[short] = late
            levels.append(
                {
                    "level": run.attacked,
                    "falls": falls.tolist(),
                    "passes": model.passes + skipped.passes,
                    "cpu_seconds": time.process_time() - model.started,
                    "skipped_passes": skipped.passes,
                    "skipped": len(short),
                    "skipped_and_broken": int(late.sum()),
                }
            )
        return {"levels": levels}

    def stage(self, model: Counted, run: Run, noise: ImageNoise, number: int, index: Tensor) -> Tensor:
        """Whether images fall to a stage of the cascade, as in `AutoAttack.run`."""
        if not len(index):
            return torch.zeros(0, dtype=torch.bool)
        _, attack, loss = ATTACK.stages[number - 1]
        aim, own = self.decision(run).take(index), noise.take(index).fork(number)
        made = attack(model, self.pixels[index], aim.under(loss), self.plan.threat, generator=own, batch_size=64)
        return aim.lead(judged(model, made, self.plan)) > 0

    def shared(self) -> dict[str, Any]:
        model = Counted(self.model)
        found = attack_levels(model, self.pixels, self.leaves, self.forest, self.plan, self.runs, self.noises)
        self.found, cost = found, model.cost()
        falls = [self.decision(run).lead(level.scores) > 0 for run, level in zip(self.runs, found, strict=True)]
        elsewhere = sum(level.broken_by.count("other level") for level in found)
        return cost | {"falls": [fall.tolist() for fall in falls], "elsewhere": elsewhere}

    def warm(self) -> dict[str, Any]:
        """An extra stage before each cascade, after `shared`: APGD from the best image of the levels before."""
        model, pool, broken = Counted(self.model), [(self.pixels, judged(self.model, self.pixels, self.plan))], 0
        for run, noise, level in zip(self.runs, self.noises, self.found, strict=True):
            decision = self.decision(run)
            leads = torch.stack([decision.lead(scores) for _, scores in pool])
            best, who = leads.max(0)
            left = (best <= 0).nonzero()[:, 0]
            if len(pool) > 1 and len(left):
                starts = torch.stack([images for images, _ in pool])[who[left], left]
                stage, aim = ATTACK.stages[0], decision.take(left)
                made = stage.attack(
                    model,
                    self.pixels[left],
                    aim.under(stage.loss),
                    self.plan.threat,
                    generator=noise.take(left).fork(9),
                    batch_size=64,
                    starts=starts,
                )
                broken += int((aim.lead(judged(self.model, made, self.plan)) > 0).sum())
            pool.append((level.images, level.scores))
        return {"passes": model.passes, "broken": broken}


class GivenUp:
    """The images of the search inside the block whose first run ended because it could not succeed."""

    def __enter__(self) -> GivenUp:
        self.images, self._original = set[int](), search_module._Loop._leave
        original = self._original

        def leave(loop: Any) -> None:
            given_up = loop.foresight.hopeless.tolist()
            self.images |= {place[0] for place, gone in zip(loop.places, given_up, strict=True) if gone}
            original(loop)

        search_module._Loop._leave = leave  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        search_module._Loop._leave = self._original  # type: ignore[method-assign]


def opened(name: str, forest: Forest, images: AuditImages) -> TreeModel:
    if name == "plain":
        return build_tree_model(load("nano"), forest, images=images.pixels[:]).requires_grad_(False)
    return load_checkpoint(HERE / "runs" / "audit-tecoa", forest=forest).tree_model.requires_grad_(False)


def measured(name: str, seed: int, count: int) -> dict[str, Any]:
    data = emoji()
    forest = data.forest(None)
    images = data.audit(load("nano").image_encoder.preprocessing.resolution).subset(count, seed=seed)
    case = Case(opened(name, forest, images), images, forest, seed)
    row = {
        "model": name,
        "seed": seed,
        "images": count,
        "alone": case.alone(),
        "shared": case.shared(),
        "warm": case.warm(),
    }
    return row | {"figures": figures(row)}


def figures(row: dict[str, Any]) -> dict[str, float]:
    """The cost of all levels in units of the leaf's, and what became of decisions, for each way."""
    levels = row["alone"]["levels"]
    leaf, total = levels[0], sum(level["passes"] for level in levels)
    decisions = len(levels) * len(leaf["falls"])
    short = total - sum(level["skipped_passes"] for level in levels[1:])
    fallen = sum(sum(level["falls"]) for level in levels)
    return {
        "alone_to_leaf": total / leaf["passes"],
        "shared": row["shared"]["passes"] / total,
        "shared_cpu": row["shared"]["cpu_seconds"] / sum(level["cpu_seconds"] for level in levels),
        "warm": (row["shared"]["passes"] + row["warm"]["passes"]) / total,
        "warm_broken": row["warm"]["broken"],
        "short": short / total,
        "short_skipped": sum(level["skipped"] for level in levels[1:]),
        "short_lost": sum(level["skipped_and_broken"] for level in levels[1:]),
        "standing_alone": decisions - fallen,
        "standing_shared": decisions - sum(map(sum, row["shared"]["falls"])),
        "elsewhere": row["shared"]["elsewhere"],
    }


def standing(seed: int, count: int) -> list[dict[str, Any]]:
    """The passes of every level alone on the hardened model, and those of the images that stand, attacked again."""
    data, found = emoji(), []
    forest = data.forest(None)
    images = data.audit(load("nano").image_encoder.preprocessing.resolution).subset(count, seed=seed)
    case = Case(opened("tecoa", forest, images), images, forest, seed)
    for run, noise in zip(case.runs, case.noises, strict=True):
        whole, again, decision = Counted(case.model), Counted(case.model), case.decision(run)
        broken = ATTACK.run(whole, case.pixels, decision, case.plan.threat, generator=noise, batch_size=64)
        cost, left = whole.cost(), (broken.stage == -1).nonzero()[:, 0]
        if len(left):
            own = noise.take(left)
            ATTACK.run(again, case.pixels[left], decision.take(left), case.plan.threat, generator=own, batch_size=64)
        nodes = len(forest.find_cut(run.attacked).nodes)
        counts = {"standing": len(left), "passes_of_standing": again.passes}
        found.append({"level": run.attacked, "nodes": nodes} | cost | counts)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    about = [f"{row['model']}, seed {row['seed']}, {row['images']} images" for row in rows]
    lines = [f"| | {' | '.join(about)} |", "|---|" + "---:|" * len(rows)]
    wanted = {
        "`shared`, passes / each level alone": "shared",
        "`shared`, CPU seconds / each level alone": "shared_cpu",
        "`warm`, passes / each level alone": "warm",
        "`short`, passes / each level alone": "short",
        "decisions whose aimed runs `short` skips": "short_skipped",
        "of them broken by the aimed runs": "short_lost",
        "decisions that stand, each level alone": "standing_alone",
        "decisions that stand, `shared`": "standing_shared",
        "images taken from another level": "elsewhere",
    }
    for words, key in wanted.items():
        form = ".2f" if "/" in words else ".0f"
        lines.append(f"| {words} | {' | '.join(format(row['figures'][key], form) for row in rows)} |")
    return "\n".join(lines) + "\n"


def publish(rows: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]]) -> None:
    content = {
        "command": "python benchmarks/audit.py MODEL SEED IMAGES, then standing and table",
        "machine": f"{machine(torch.device('cpu'))}, one thread",
        "data": "some of the 524 audited emoji, another subset for each seed; eps 4/255 linf; 12 levels",
        "attack": "AutoAttack fast: APGD on the cross-entropy, then aimed at 9 wrong classes, optimism 4",
        "pass": "one image forward; a gradient counts 1.5 more",
        "torch": torch.__version__,
        "rows": rows,
        "standing": {"model": "tecoa", "seed": 0, "images": 64, "levels": alone},
    }
    write_whole(HERE / "audit.json", json.dumps(content, indent=1) + "\n")
    put(HERE / "audit.md", table(rows), "<!-- table -->\n")
    print(table(rows))


def main() -> None:
    torch.set_num_threads(1)
    parts = HERE / "runs" / "audit"
    match sys.argv[1:]:
        case ["table"]:
            rows = [json.loads(part.read_text()) for part in sorted(parts.glob("*-*.json"))]
            publish(rows, json.loads((parts / "standing.json").read_text()))
        case ["standing"]:
            write_whole(parts / "standing.json", json.dumps(standing(0, 64)))
        case [name, seed, count]:
            row = measured(name, int(seed), int(count))
            write_whole(parts / f"{name}-{seed}.json", json.dumps(row))
            print(name, seed, row["figures"])
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
