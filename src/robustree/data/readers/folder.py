"""Images in a folder with one sub-folder a class, and in a table of paths and classes."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from robustree.data.encoded import EncodedImages, class_key, joined, leaves_of_labels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_folder(path: Path, classes: tuple[str, ...] | None = None) -> EncodedImages:
    """The images `path/<class>/<image>`; sub-folder names are class names ("_" and "-" read as spaces).

    With `classes`, labels are their positions and every sub-folder must be one of them; otherwise the sorted folder
    names are the classes.

    Raises:
        ValueError: no such folder, no images, or an unknown class.
    """
    files, _ = labelled_files(path, classes)
    return EncodedImages(
        str(path),
        tuple(f"{file.parent.name}/{file.name}" for file, _ in files),
        torch.tensor([leaf for _, leaf in files]),
        lambda position: files[position][0].read_bytes(),
    )


def labelled_files(
    path: Path, classes: tuple[str, ...] | None = None
) -> tuple[tuple[tuple[Path, int], ...], tuple[str, ...]]:
    """The images in `path/<class>/` with their labels, and the classes, as `read_folder` understands them.

    Raises:
        ValueError: no such folder, no images, or an unknown class.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} is not a folder; give a folder with one sub-folder of images a class.")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    names = {folder: folder.name.replace("_", " ").replace("-", " ").strip() for folder in folders}
    if not folders:
        raise ValueError(f"{str(path)!r} has no sub-folders; give a folder with one sub-folder of images a class.")
    known = classes or tuple(sorted({class_key(name): name for name in names.values()}.values()))
    keys = {class_key(name): position for position, name in enumerate(known)}
    for folder, name in names.items():
        if class_key(name) not in keys:
            raise ValueError(
                f"the folder {folder.name!r} in {str(path)!r} is none of the {len(known)} classes of the tree: "
                "rename it or add the class."
            )
    files = tuple((file, keys[class_key(name)]) for folder, name in names.items() for file in image_files(folder))
    if not files:
        raise ValueError(f"{str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))}): check the path.")
    return files, known


def image_files(folder: Path) -> tuple[Path, ...]:
    """The image files directly in a folder, by name."""
    return tuple(sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES))


def read_csv(path: Path, classes: tuple[str, ...]) -> EncodedImages:
    """The images of a CSV file with the columns `path` (from the file's folder) and `label` (a class, or its number).

    Raises:
        ValueError: other columns, no rows, a label that is no class, or an image that is not there.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if not {"path", "label"} <= set(table.fieldnames or ()):
            found = ", ".join(table.fieldnames or ()) or "nothing"
            raise ValueError(f"{str(path)!r} has the columns {found}; write path,label in its first line.")
        rows = [(row["path"] or "", row["label"] or "") for row in table]
    for name, _ in rows:
        if not (path.parent / name).is_file():
            raise ValueError(f"{str(path)!r} names the image {name!r}, which is not in {str(path.parent)!r}: mend it.")
    part = EncodedImages(
        str(path.parent),
        tuple(name for name, _ in rows),
        leaves_of_labels([label for _, label in rows], classes, where=str(path)),
        lambda position: (path.parent / rows[position][0]).read_bytes(),
    )
    return joined(str(path.parent), [part])
