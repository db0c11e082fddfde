"""What is wrong with a set of images: counts, images that cannot be decoded, duplicates, odd sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from robustree.data.decoding import decode
from robustree.data.encoded import EncodedImages
from robustree.data.record import Record

LONG, SMALL = 4.0, 16
"""An image is odd if one side is this many times the other, or the shorter one has fewer pixels than this."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found. `counts`: images a class, in label order. `findings`: sentences, each one a reason to look."""

    images: int
    counts: Mapping[str, int]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    conflicts: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    odd: tuple[str, ...]
    findings: tuple[str, ...]


def inspect_images(
    images: EncodedImages,
    classes: Sequence[str],
    *,
    record: Record | None = None,
    train: EncodedImages | None = None,
    report: Callable[[], None] = lambda: None,
) -> Inspection:
    """Decode every image once and compare pixels by hash, inside the set and with those of `train`.

    `report` is called after every image, of `train` first. Sizes are (width, height).
    """
    known: dict[str, str] = {}
    for position in range(len(train.ids) if train else 0):
        digest, _ = _look(train, position)  # type: ignore[arg-type]
        if digest:
            known.setdefault(digest, train.ids[position])  # type: ignore[union-attr]
        report()
    first: dict[str, int] = {}
    unreadable, twice, conflicts, shared, sizes = [], [], [], [], {}
    for position, name in enumerate(images.ids):
        digest, size = _look(images, position)
        report()
        if digest is None or size is None:
            unreadable.append(name)
            continue
        sizes[name] = size
        other = first.setdefault(digest, position)
        if other != position:
            same = bool(images.leaves[other] == images.leaves[position])
            (twice if same else conflicts).append((images.ids[other], name))
        if digest in known:
            shared.append((known[digest], name))
    tally = Counter(images.leaves.tolist())
    counts = {name: tally[leaf] for leaf, name in enumerate(classes)}
    odd = [name for name, (w, h) in sizes.items() if max(w, h) > LONG * min(w, h) or min(w, h) < SMALL]
    empty = [name for name, count in counts.items() if not count]
    expected = record.images if record else len(images.ids)
    notes = (
        (len(images.ids) != expected, f"{len(images.ids)} images; the record has {expected}"),
        (empty, f"{len(empty)} of {len(classes)} classes have no image ({_some(empty)})"),
        (unreadable, f"{len(unreadable)} images cannot be decoded ({_some(unreadable)})"),
        (twice, f"{len(twice)} images occur twice ({_pairs(twice)})"),
        (conflicts, f"{len(conflicts)} images occur twice with two labels ({_pairs(conflicts)})"),
        (shared, f"{len(shared)} images are training images too ({_pairs(shared)})"),
        (odd, f"{len(odd)} images are very long or under {SMALL} pixels ({_some(odd)})"),
    )
    by_area = sorted(sizes.values(), key=lambda size: size[0] * size[1])
    return Inspection(
        images=len(images.ids),
        counts=counts,
        smallest=by_area[0] if by_area else None,
        largest=by_area[-1] if by_area else None,
        unreadable=tuple(unreadable),
        duplicates=tuple(twice),
        conflicts=tuple(conflicts),
        shared=tuple(shared),
        odd=tuple(odd),
        findings=tuple(sentence for found, sentence in notes if found),
    )


def _look(images: EncodedImages, position: int) -> tuple[str | None, tuple[int, int] | None]:
    """The hash of the pixels and the size (width, height); None for both if the image cannot be decoded."""
    content = images.read(position)
    try:
        pixels = decode(content, images.ids[position])
    except ValueError:
        return None, None
    size = pixels.shape[2], pixels.shape[1]
    return sha256(repr(size).encode() + pixels.numpy().tobytes()).hexdigest(), size


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return _some([f"{one} = {other}" for one, other in pairs])
