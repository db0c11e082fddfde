"""Audit rows, checked and turned into arrays: one `Subject` per (model, head), one `Run` per attack on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustree.taxonomy.forest import Cut, Forest

READOUTS = ("direct", "via_leaf", "summed")
"""How a level is decided: by its own prompts, by the group of the best leaf, by summed leaf probability."""

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """Predictions of one pass over the images.

    `predicted[readout]` has shape (n, cuts): an index into each cut's nodes. `attacked` is "" for the clean
    pass. Where an adversarial image left the threat (`invalid`), the clean prediction stands in its place.
    `broken_by` (n,): the stage of a cascade that broke each image, None for all others.
    """

    attack: str
    attacked: str
    predicted: Mapping[str, Indices]
    distance: float
    invalid: tuple[str, ...]
    broken_by: tuple[str | None, ...]

    @property
    def label(self) -> str:
        """The run's name in figures: "pgd-20 at unicode/1"."""
        return f"{self.attack} at {self.attacked}"


@dataclass(frozen=True)
class Subject:
    """One model read through one head; every array follows the order of `Table.images`."""

    model: str
    head: str
    clean: Run
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Table:
    """All rows of an audit. `leaves` has shape (n,), `truth` (n, cuts): the right index in each cut."""

    forest: Forest
    cuts: tuple[Cut, ...]
    images: tuple[str, ...]
    leaves: Indices
    truth: Indices
    subjects: tuple[Subject, ...]

    def subject(self, model: str, head: str) -> Subject:
        """Return the subject of that name; raises ValueError if the rows have none."""
        for subject in self.subjects:
            if (subject.model, subject.head) == (model, head):
                return subject
        known = ", ".join(f"{subject.model}/{subject.head}" for subject in self.subjects)
        raise ValueError(f"The rows have no model and head {model}/{head}: choose one of {known}.")

    def correct(self, run: Run, readout: str) -> Mask:
        """Return whether `run` is right, of shape (n, cuts)."""
        return run.predicted[readout] == self.truth


def attacked_labels(cuts: Sequence[Cut]) -> dict[str, tuple[int | None, str]]:
    """Return every allowed `attacked` label with (index of its cut or None, readout), in reporting order.

    At the leaf the three readouts are one decision, so "leaf" stands alone.
    """
    labels: dict[str, tuple[int | None, str]] = {}
    for index, cut in enumerate(cuts):
        labels[cut.label] = (index, "direct")
        if cut.level:
            labels |= {f"{cut.label}:{readout}": (index, readout) for readout in READOUTS[1:]}
    return labels | {"all": (None, "direct")}


def aimed_label(cut: Cut, readout: str) -> str:
    """Return the `attacked` label of the attack that aims at this cut as this readout decides it."""
    return cut.label if readout == "direct" or cut.level == 0 else f"{cut.label}:{readout}"


def read_table(rows: Sequence[Mapping[str, Any]], forest: Forest) -> Table:
    """Check audit rows against a forest and return them as arrays; the order of the rows does not matter.

    Raises ValueError for no rows, an unknown cut or attacked label, a prediction outside its cut, a row of
    another forest, a duplicate, an image with two true leaves, and (models, attacks) that do not cover the
    same images.
    """
    if not rows:
        raise ValueError("There are no rows: run the audit first, it writes one row for each image and attack.")
    cuts = forest.cuts()
    allowed = attacked_labels(cuts)
    leaf_of: dict[str, int] = {}
    passes: dict[tuple[str, str], dict[tuple[str, str], dict[str, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows, start=1):
        _check_row(number, row, forest, cuts, allowed)
        image = str(row["image"])
        if leaf_of.setdefault(image, row["leaf"]) != row["leaf"]:
            raise ValueError(
                f"Row {number} gives image {image!r} the leaf {row['leaf']}, but an earlier row gives it "
                f"{leaf_of[image]}: rows of different forests cannot be mixed."
            )
        by_image = passes.setdefault((row["model"], row["head"]), {}).setdefault((row["attack"], row["attacked"]), {})
        if image in by_image:
            raise ValueError(
                f"Row {number} repeats image {image!r} for {row['model']}/{row['head']}, attack "
                f"{row['attack']!r} at {row['attacked']!r}: keep one of the two rows."
            )
        by_image[image] = row
    images = tuple(sorted(leaf_of))
    leaves = np.array([leaf_of[image] for image in images], dtype=np.int64)
    truth = np.stack([np.array(cut.of_leaf, dtype=np.int64)[leaves] for cut in cuts], axis=1)
    order = {label: index for index, label in enumerate(allowed)}
    subjects = tuple(_subject(model, head, found, images, cuts, order) for (model, head), found in passes.items())
    return Table(forest, cuts, images, leaves, truth, subjects)


def _check_row(
    number: int,
    row: Mapping[str, Any],
    forest: Forest,
    cuts: Sequence[Cut],
    allowed: Mapping[str, tuple[int | None, str]],
) -> None:
    needed = ("image", "leaf", "model", "head", "attack", "attacked", "direct", "summed", "distance", "valid")
    for name in needed:
        if name not in row:
            raise ValueError(f"Row {number} has no {name!r}: an audit row needs {', '.join(needed)}.")
    if row.get("forest", forest.fingerprint) != forest.fingerprint:
        raise ValueError(
            f"Row {number} belongs to forest {row['forest']}, but the forest given is {forest.fingerprint}: "
            "use the forest that the audit wrote beside its rows."
        )
    _check_index(number, "leaf", row["leaf"], forest.leaf_count)
    labels = [cut.label for cut in cuts]
    for readout in ("direct", "summed"):
        for label in row[readout]:
            if label not in labels:
                raise ValueError(
                    f"Row {number} predicts the unknown cut {label!r}, but the forest's cuts are "
                    f"{', '.join(labels)}: use the forest that the audit wrote beside its rows."
                )
        for cut in cuts:
            if cut.label not in row[readout]:
                raise ValueError(
                    f"Row {number} has no {readout} prediction for the cut {cut.label!r}: rows of different "
                    "forests cannot be mixed."
                )
            _check_index(number, f"{readout} prediction for {cut.label}", row[readout][cut.label], len(cut.nodes))
    attack, attacked = row["attack"], row["attacked"]
    if attack == "clean" and attacked != "":
        raise ValueError(f"Row {number} is clean but names the attacked cut {attacked!r}: leave it empty.")
    if attack == "clean" and not row["valid"]:
        raise ValueError(f"Row {number} is a clean image marked invalid: check the images of the data set.")
    if attack != "clean" and attacked not in allowed:
        raise ValueError(f"Row {number} attacks the unknown cut {attacked!r}: choose one of {', '.join(allowed)}.")


def _check_index(number: int, name: str, value: object, size: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        raise ValueError(
            f"Row {number} has the {name} {value!r}, but it must be an integer from 0 to {size - 1}: "
            "rows of different forests cannot be mixed."
        )


def _subject(
    model: str,
    head: str,
    found: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]],
    images: Sequence[str],
    cuts: Sequence[Cut],
    order: Mapping[str, int],
) -> Subject:
    if ("clean", "") not in found:
        raise ValueError(f"The rows of {model}/{head} have no clean pass: audit the clean images as well.")
    for (attack, attacked), by_image in found.items():
        if len(by_image) != len(images):
            missing = next(image for image in images if image not in by_image)
            raise ValueError(
                f"{model}/{head}, attack {attack!r} at {attacked!r}, covers {len(by_image)} of {len(images)} "
                f"images ({missing!r} is missing): finish the audit, figures are paired over the same images."
            )
    clean = _run("clean", "", found["clean", ""], found["clean", ""], images, cuts)
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    keys = sorted(found.keys() - {("clean", "")}, key=lambda key: (attacks.index(key[0]), order[key[1]]))
    runs = (_run(*key, found[key], found["clean", ""], images, cuts) for key in keys)
    return Subject(model, head, clean, tuple(runs))


def _run(
    attack: str,
    attacked: str,
    by_image: Mapping[str, Mapping[str, Any]],
    clean: Mapping[str, Mapping[str, Any]],
    images: Sequence[str],
    cuts: Sequence[Cut],
) -> Run:
    invalid = tuple(image for image in images if not by_image[image]["valid"])
    chosen = [by_image[image] if by_image[image]["valid"] else clean[image] for image in images]
    predicted = {
        readout: np.array([[row[readout][cut.label] for cut in cuts] for row in chosen], dtype=np.int64)
        for readout in ("direct", "summed")
    }
    leaf = predicted["direct"][:, 0]
    predicted["via_leaf"] = np.stack([np.array(cut.of_leaf, dtype=np.int64)[leaf] for cut in cuts], axis=1)
    distance = max(float(row["distance"]) for row in by_image.values())
    broken_by = tuple(row.get("broken_by") for row in chosen)
    return Run(attack, attacked, predicted, distance, invalid, broken_by)
