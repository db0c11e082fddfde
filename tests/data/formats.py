"""The same small set of images in every format that people have, as the usual tools write it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow
from PIL import Image
from pyarrow import parquet

CLASSES = ("dog", "hot dog", "owl")
LABELS = (2, 0, 1, 0, 2, 1, 1)


def image_bytes(number: int, *, side: int = 10, kind: str = "PNG") -> bytes:
    """An image of one colour, which names it."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side + number % 3), (30 * number, 255 - 30 * number, 7)).save(stream, format=kind)
    return stream.getvalue()


def write_folder(root: Path) -> Path:
    for number, label in enumerate(LABELS):
        folder = root / CLASSES[label].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(image_bytes(number))
    return root


def write_csv(root: Path, *, numbers: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for number, label in enumerate(LABELS):
            (root / f"{number}.png").write_bytes(image_bytes(number))
            table.writerow([f"{number}.png", label if numbers else CLASSES[label]])
    return root / "images.csv"


def write_parquet(path: Path, *, names: Sequence[str] | None = CLASSES, labels: Sequence[int] = LABELS) -> Path:
    """A file as `datasets` writes it, with groups of three rows; `names` is its own list of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": image_bytes(number), "path": None} for number in range(len(labels))]
    table = pyarrow.table({"image": pyarrow.array(images, struct), "label": pyarrow.array(labels, pyarrow.int64())})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=3)
    return path


def write_tar(path: Path, numbers: Sequence[int] = range(len(LABELS)), *, suffix: str = "png") -> Path:
    """A webdataset shard: `<key>.png` and `<key>.cls`, key by key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            for name, content in (
                (f"s{number:07d}.{suffix}", image_bytes(number, kind=kind)),
                (f"s{number:07d}.cls", str(LABELS[number]).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path
