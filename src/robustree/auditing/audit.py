"""Run attacks on models at every level of a forest and write rows; everything else is computed from the rows.

A row is (image, model, head, attack, attacked level) and the predictions at every level. Rows are appended in chunks;
a chunk whose rows exist is skipped, so an interrupted audit goes on where it stopped and ends in the same rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.checkpoint import device_of, weights_digest, write_whole
from robustree.data.catalog import AuditImages
from robustree.objectives import READOUTS, CrossEntropy, Margin, Objective, Readout, every_level, level_scores
from robustree.taxonomy import Forest, forest_to_json
from robustree.tree_model import Scores, TreeModel

ROWS, HEADER, FOREST = "rows.jsonl", "audit.json", "forest.json"
HEAD_NAMES = {"sphere": "cosine", "poincare": "hyperbolic", "euclidean": "euclidean"}
Loss = Literal["margin", "cross_entropy"]


@dataclass(frozen=True)
class Subject:
    """A model under audit: a name for the report, and the model with the head that is read."""

    name: str
    model: TreeModel

    @property
    def head(self) -> str:
        return HEAD_NAMES[self.model.head.space.name]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit does to every image.

    `attack` maximises each of `losses` at every level's decision in turn, for each of `readouts`. `all_levels` adds
    the attack on the mean cross-entropy of all levels. With `stop`, an image leaves an attack once the attacked
    decision has changed: several times faster, the same robust accuracy, but transfer to other levels is then that of
    a barely sufficient attack."""

    threat: Threat
    attack: PGD = field(default_factory=PGD)
    losses: tuple[Loss, ...] = ("margin",)
    readouts: tuple[Readout, ...] = ("direct",)
    all_levels: bool = True
    stop: bool = False
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for readout in self.readouts:
            if readout not in READOUTS:
                raise ValueError(f"readout is {readout!r}; {', '.join(READOUTS)} are the readouts: choose among them.")
        if not self.attack.best:
            raise ValueError("the audit's attack returns its last iterate; audits need the best one: set best=True.")

    def runs(self, forest: Forest) -> Iterator[tuple[str, str, Loss]]:
        """(attack name, attacked label, loss) of every run; the clean run comes first."""
        yield "clean", "", "margin"
        for loss in self.losses:
            for readout in self.readouts:
                for cut in forest.cuts():
                    if readout == "direct" or cut.level > 0:
                        yield f"{self.attack.name}-{loss}", target_label(cut.label, readout), loss
        if self.all_levels:
            yield f"{self.attack.name}-cross_entropy", "all", "cross_entropy"


@dataclass(frozen=True)
class Status:
    """How far an audit is: `done` of `total` chunks, `images` attacked in the last one (0 where its rows existed)."""

    done: int
    total: int
    images: int
    doing: str


def target_label(cut_label: str, readout: Readout) -> str:
    """ "unicode/1" or "unicode/1:via_leaf": the level under attack and, unless direct, the readout."""
    return cut_label if readout == "direct" else f"{cut_label}:{readout}"


def audit(
    subjects: Sequence[Subject],
    images: AuditImages,
    forest: Forest,
    plan: Plan,
    directory: Path,
    *,
    command: str,
    report: Callable[[Status], None] = lambda status: None,
) -> None:
    """Write `rows.jsonl`, `audit.json` and `forest.json` into `directory`; existing rows of the same audit are kept.

    Raises:
        ValueError: a model has another forest, the directory holds another audit, or a model's scores are not finite.
    """
    keys = [(subject.name, subject.head) for subject in subjects]
    for subject, key in zip(subjects, keys, strict=True):
        if keys.count(key) > 1:
            raise ValueError(
                f"two models are named {subject.name!r} with the {subject.head} head: give each its own name."
            )
        if subject.model.forest.fingerprint != forest.fingerprint:
            raise ValueError(
                f"the model {subject.name!r} was built over another forest: load it with the audit's trees."
            )
    header = _header(subjects, images, forest, plan, command)
    _claim(directory, header)
    write_whole(directory / FOREST, json.dumps(forest_to_json(forest)))
    known = _existing(directory / ROWS)
    runs = [(subject, *run) for subject in subjects for run in plan.runs(forest)]
    starts = range(0, len(images.ids), plan.batch_size)
    done, total = 0, len(runs) * len(starts)
    with (directory / ROWS).open("ab") as file:
        for subject, attack, attacked, loss in runs:
            for start in starts:
                index = slice(start, start + plan.batch_size)
                fresh: list[dict[str, Any]] = []
                keys = {(image, subject.name, subject.head, attack, attacked) for image in images.ids[index]}
                if not keys <= known:
                    rows = _chunk(subject, images, index, forest, plan, attack, attacked, loss)
                    fresh = [row for row in rows if _key(row) not in known]
                    file.write(b"".join(json.dumps(row).encode() + b"\n" for row in fresh))
                    file.flush()
                    os.fsync(file.fileno())
                done += 1
                report(Status(done, total, len(fresh), f"{subject.name} ({subject.head}) {attacked or 'clean'}"))


def _chunk(
    subject: Subject,
    images: AuditImages,
    index: slice,
    forest: Forest,
    plan: Plan,
    attack: str,
    attacked: str,
    loss: Loss,
) -> list[dict[str, Any]]:
    device = device_of(subject.model)
    clean, leaves = images.pixels[index].to(device), images.leaves[index].to(device)
    # The seed names the chunk and the attacked level but not the model: models meet the same starting noise.
    generator = torch.Generator().manual_seed(crc32(f"{plan.seed}/{attack}/{attacked}/{index.start}".encode()))
    made = clean
    if attacked:
        made = attack_level(subject.model, clean, leaves, forest, plan, attacked, loss, generator)
    with torch.no_grad():
        scores = subject.model(made)
    if not bool(scores.nodes.isfinite().all()):
        raise ValueError(f"the model {subject.name!r} gave scores that are not finite: check its weights.")
    direct, summed = predictions(scores, forest, "direct"), predictions(scores, forest, "summed")
    valid, distance = (
        plan.threat.contains(made, clean).tolist(),
        (made - clean).abs().flatten(1).amax(1).tolist(),
    )
    return [
        {
            "image": image,
            "leaf": int(leaves[i]),
            "model": subject.name,
            "head": subject.head,
            "attack": attack,
            "attacked": attacked,
            "direct": {label: int(values[i]) for label, values in direct.items()},
            "summed": {label: int(values[i]) for label, values in summed.items()},
            "linf": distance[i],
            "valid": valid[i],
        }
        for i, image in enumerate(images.ids[index])
    ]


def attack_level(
    model: TreeModel,
    images: Tensor,
    leaves: Tensor,
    forest: Forest,
    plan: Plan,
    attacked: str,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial images against one level and readout ("unicode/1", "leaf", "unicode/1:summed") or against "all"."""
    attack = plan.attack
    if attacked != "all" and plan.stop and loss == "margin":
        attack = replace(attack, stop=True)
    objective = level_objective(forest, leaves, attacked, loss)
    frozen = [p for p in model.parameters() if p.requires_grad]
    if frozen:
        raise ValueError("the audited model has parameters that need gradients: call requires_grad_(False) first.")
    return attack(model, images, objective, plan.threat, generator=generator)


def level_objective(forest: Forest, leaves: Tensor, attacked: str, loss: Loss) -> Objective:
    """What an attack on a level maximises.

    Raises:
        ValueError: a cross-entropy on a readout other than direct, or an unknown level.
    """
    if attacked == "all":
        return every_level(forest.cuts(), leaves)
    label, _, readout = attacked.partition(":")
    cut = forest.find_cut(label)
    if loss == "margin":
        return Margin(cut, leaves, readout=readout or "direct")  # type: ignore[arg-type]
    if readout:
        raise ValueError(
            f"a cross-entropy attack on {attacked!r} was asked for; readouts other than direct need the margin."
        )
    return CrossEntropy(cut, leaves)


def predictions(scores: Scores, forest: Forest, readout: Readout) -> dict[str, Tensor]:
    """The decision (B,) at every cut, as an index into the cut's nodes."""
    return {cut.label: level_scores(scores, cut, readout if cut.level else "direct").argmax(1) for cut in forest.cuts()}


def depth_spearman(model: TreeModel) -> float | None:
    """Rank correlation of the nodes' tree level (leaf deepest) with the norm of their text; None on the sphere, where
    norms mean nothing."""
    if model.head.space.name == "sphere":
        return None
    with torch.no_grad():
        norms = model.prototypes().norm(dim=1).double()
    forest = model.forest
    depths = torch.zeros(len(forest.names), dtype=torch.double)
    for tree in forest.trees:
        for number in range(len(tree.levels), 0, -1):
            for node in tree.levels[number - 1]:
                if node >= forest.leaf_count:
                    depths[node] = -number / (len(tree.levels) + 1)
    ranks = torch.stack([_ranks(depths), _ranks(norms.cpu())])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Ranks with ties at their mean."""
    less = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return less.double() + (equal.double() - 1) / 2


def _header(
    subjects: Sequence[Subject], images: AuditImages, forest: Forest, plan: Plan, command: str
) -> dict[str, Any]:
    from robustree import __version__

    spearman = {f"{s.name}/{s.head}": depth_spearman(s.model) for s in subjects}
    return {
        "models": list(dict.fromkeys(subject.name for subject in subjects)),
        "heads": {
            f"{s.name}/{s.head}": {
                "scale": s.model.head.scale,
                **vars(s.model.head.space),
                "weights": weights_digest(s.model),
            }
            for s in subjects
        },
        "threat": {"eps": plan.threat.eps, "norm": plan.threat.norm},
        "attacks": list(dict.fromkeys(attack for attack, _, _ in plan.runs(forest))),
        "attack": {
            **vars(plan.attack),
            "losses": list(plan.losses),
            "readouts": list(plan.readouts),
            "stop": plan.stop,
            "batch_size": plan.batch_size,
        },
        "forest": forest.fingerprint,
        "images": len(images.ids),
        "labels": sha256(json.dumps([images.ids, images.leaves.tolist()]).encode()).hexdigest(),
        "seed": plan.seed,
        "spearman": {name: value for name, value in spearman.items() if value is not None},
        "versions": {"robustree": __version__, "torch": torch.__version__},
        "command": command,
    }


def _claim(directory: Path, header: Mapping[str, Any]) -> None:
    """Write the header, or check that the directory holds the same audit (another command line may resume it)."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / HEADER
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in ("forest", "threat", "attack", "seed", "images", "labels"):
            if found.get(name) != json.loads(json.dumps(header[name])):
                raise ValueError(
                    f"{str(directory)!r} holds an audit with another {name} ({found.get(name)}): "
                    "choose another directory."
                )
        header = {**header, "models": list(dict.fromkeys([*found["models"], *header["models"]]))}
        for name, head in header["heads"].items():
            if found["heads"].get(name, head) != head:
                raise ValueError(
                    f"{str(directory)!r} holds rows of another model called {name.split('/')[0]!r}: "
                    "choose another directory, or give the model another name."
                )
        header["heads"] = found["heads"] | header["heads"]
        header["spearman"] = found["spearman"] | header["spearman"]
    write_whole(path, json.dumps(header, indent=1) + "\n")


def _key(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    return row["image"], row["model"], row["head"], row["attack"], row["attacked"]


def _existing(path: Path) -> set[tuple[str, str, str, str, str]]:
    """The keys of the rows on disk; a last line that a crash cut off is removed from the file."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        write_whole(path, whole)
    return {_key(json.loads(line)) for line in whole.splitlines()}


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """All rows of an audit.

    Raises:
        ValueError: the directory holds no audit.
    """
    path = directory / ROWS
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} holds no {ROWS}: give a directory that `robustree audit` wrote.")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
