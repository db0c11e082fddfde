"""Audit rows, checked and turned into arrays: one `Subject` per (model, head), one `Run` per attack on it.

A row is a dictionary of two kilobytes and its decisions are a few bytes, so rows are taken one at a time."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustree.taxonomy.forest import Cut, Forest

READOUTS = ("direct", "via_leaf", "summed")
"""How a level is decided: by its own prompts, by the group of the best leaf, by summed leaf probability."""

Indices = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """Predictions of one pass over the images.

    `predicted[readout]` has shape (n, cuts): an index into each cut's nodes. `attacked` is "" for the clean
    pass. Where an adversarial image left the threat (`invalid`), the clean prediction stands in its place.
    `distance` is the largest of all images, `reach` the largest of those inside the threat.
    `broken_by` (n,): the stage of a cascade that broke each image, None for all others.
    """

    attack: str
    attacked: str
    predicted: Mapping[str, Indices]
    distance: float
    reach: float
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

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Each image's place in every array."""
        return {image: row for row, image in enumerate(self.images)}

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


@dataclass
class _Pass:
    """The rows of one run in the order of the file: whose they are, and what they say."""

    images: array[int] = field(default_factory=lambda: array("i"))
    direct: array[int] = field(default_factory=lambda: array("i"))
    summed: array[int] = field(default_factory=lambda: array("i"))
    distance: array[float] = field(default_factory=lambda: array("d"))
    valid: bytearray = field(default_factory=bytearray)
    broken_by: list[str | None] = field(default_factory=list)
    there: bytearray = field(default_factory=bytearray)

    def add(self, image: int, row: Mapping[str, Any], labels: Sequence[str]) -> bool:
        """Take a row over; whether it is the first of its image."""
        if image < len(self.there) and self.there[image]:
            return False
        self.there.extend(bytes(max(0, image + 1 - len(self.there))))
        self.there[image] = True
        self.images.append(image)
        self.direct.extend(row["direct"][label] for label in labels)
        self.summed.extend(row["summed"][label] for label in labels)
        self.distance.append(row["distance"])
        self.valid.append(row["valid"])
        self.broken_by.append(row.get("broken_by"))
        return True


def read_table(rows: Iterable[Mapping[str, Any]], forest: Forest) -> Table:
    """Check audit rows against a forest and return them as arrays; the order of the rows does not matter.

    Raises ValueError for no rows, an unknown cut or attacked label, a prediction outside its cut, a row of
    another forest, a duplicate, an image with two true leaves, and (models, attacks) that do not cover the
    same images.
    """
    cuts = forest.cuts()
    allowed, labels = attacked_labels(cuts), [cut.label for cut in cuts]
    numbers: dict[str, int] = {}
    leaf_of = array("i")
    passes: dict[tuple[str, str], dict[tuple[str, str], _Pass]] = defaultdict(lambda: defaultdict(_Pass))
    for number, row in enumerate(rows, start=1):
        _check_row(number, row, forest, cuts, allowed)
        image = numbers.setdefault(str(row["image"]), len(numbers))
        if image == len(leaf_of):
            leaf_of.append(row["leaf"])
        if leaf_of[image] != row["leaf"]:
            raise ValueError(
                f"Row {number} gives image {row['image']!r} the leaf {row['leaf']}, but an earlier row gives it "
                f"{leaf_of[image]}: rows of different forests cannot be mixed."
            )
        found = passes[row["model"], row["head"]][row["attack"], row["attacked"]]
        if not found.add(image, row, labels):
            raise ValueError(
                f"Row {number} repeats image {row['image']!r} for {row['model']}/{row['head']}, attack "
                f"{row['attack']!r} at {row['attacked']!r}: keep one of the two rows."
            )
    if not numbers:
        raise ValueError("There are no rows: run the audit first, it writes one row for each image and attack.")
    images = tuple(sorted(numbers))
    by_name = np.array([numbers[image] for image in images], dtype=np.int32)
    leaves = np.array(leaf_of, dtype=np.int32)[by_name]
    of_leaf = [np.array(cut.of_leaf, dtype=np.int32) for cut in cuts]
    truth = np.stack([column[leaves] for column in of_leaf], axis=1)
    order = {label: index for index, label in enumerate(allowed)}
    subjects = tuple(_subject(*key, found, images, by_name, of_leaf, order) for key, found in passes.items())
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
    _check_distance(number, row["distance"], row["valid"])
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


def _check_distance(number: int, distance: object, valid: object) -> None:
    if not isinstance(valid, bool):
        raise ValueError(f"Row {number} has valid {valid!r}, but it must be true or false: audit that image again.")
    whole = type(distance) is int and abs(distance) < 2**53
    if not whole and not (isinstance(distance, float) and (math.isfinite(distance) or not valid)):
        raise ValueError(
            f"Row {number} has the distance {distance!r}, but it must be a number, and finite where the row is valid: "
            "audit that image again."
        )


def _subject(
    model: str,
    head: str,
    found: Mapping[tuple[str, str], _Pass],
    images: Sequence[str],
    by_name: Indices,
    of_leaf: Sequence[Indices],
    order: Mapping[str, int],
) -> Subject:
    if ("clean", "") not in found:
        raise ValueError(f"The rows of {model}/{head} have no clean pass: audit the clean images as well.")
    for (attack, attacked), rows in found.items():
        if len(rows.images) != len(images):
            covered = set(rows.images)
            missing = next(image for image, number in zip(images, by_name, strict=True) if number not in covered)
            raise ValueError(
                f"{model}/{head}, attack {attack!r} at {attacked!r}, covers {len(covered)} of {len(images)} "
                f"images ({missing!r} is missing): finish the audit, figures are paired over the same images."
            )
    clean = _run("clean", "", found["clean", ""], None, images, by_name, of_leaf)
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    keys = sorted(found.keys() - {("clean", "")}, key=lambda key: (attacks.index(key[0]), order[key[1]]))
    runs = (_run(*key, found[key], clean, images, by_name, of_leaf) for key in keys)
    return Subject(model, head, clean, tuple(runs))


def _run(
    attack: str,
    attacked: str,
    rows: _Pass,
    clean: Run | None,
    images: Sequence[str],
    by_name: Indices,
    of_leaf: Sequence[Indices],
) -> Run:
    place = np.empty(len(images), dtype=np.int32)
    place[np.array(rows.images)] = np.arange(len(images), dtype=np.int32)
    place = place[by_name]  # of each image's row, images in the order of their names
    valid = np.frombuffer(rows.valid, dtype=np.bool_)[place]
    distance = np.array(rows.distance)[place]
    predicted: dict[str, Indices] = {}
    for readout, said in (("direct", rows.direct), ("summed", rows.summed)):
        own = np.array(said, dtype=np.int32).reshape(len(images), -1)[place]
        predicted[readout] = own if clean is None else np.where(valid[:, None], own, clean.predicted[readout])
    leaf = predicted["direct"][:, 0]
    predicted["via_leaf"] = np.stack([column[leaf] for column in of_leaf], axis=1)
    broken_by = tuple(rows.broken_by[row] if ok else None for row, ok in zip(place, valid, strict=True))
    invalid = tuple(image for image, ok in zip(images, valid, strict=True) if not ok)
    reach = float(distance[valid].max(initial=0.0))
    return Run(attack, attacked, predicted, float(distance.max()), reach, invalid, broken_by)
