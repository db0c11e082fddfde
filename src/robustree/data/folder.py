"""A user's own images: a folder with one sub-folder a class, read once, kept as 8-bit pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Folder:
    """Labelled images at one resolution: `pixels` (N, 3, R, R) uint8, `leaves` (N,), `ids` relative paths."""

    pixels: Tensor
    leaves: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Training images (B, 3, R, R): mirrored at random, shifted by up to a sixteenth of the side."""
        images = self.pixels[index].float() / 255
        flip = torch.rand(len(index), generator=generator) < 0.5
        images[flip] = images[flip].flip(-1)
        reach = max(1, images.shape[-1] // 16)
        shifts = torch.randint(-reach, reach + 1, (len(index), 2), generator=generator)
        padded = torch.nn.functional.pad(images, (reach,) * 4, mode="replicate")
        side = images.shape[-1]
        return torch.stack(
            [
                image[:, reach + int(y) : reach + int(y) + side, reach + int(x) : reach + int(x) + side]
                for image, (y, x) in zip(padded, shifts, strict=True)
            ]
        )

    def fixed(self) -> Tensor:
        """All images (N, 3, R, R) as they are, for audits."""
        return self.pixels.float() / 255


def read_folder(path: Path, *, resolution: int, classes: tuple[str, ...] | None = None) -> Folder:
    """Read `path/<class>/<image>`; sub-folder names are class names ("_" and "-" read as spaces).

    With `classes`, labels are their positions and every sub-folder must be one of them; otherwise the sorted folder names are the
    classes. The shorter side is scaled to `resolution`, the centre is cut out.

    Raises:
        ValueError: no such folder, no images, an unknown class, or an unreadable image (named).
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} is not a folder; give a folder with one sub-folder of images a class.")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    names = {folder: folder.name.replace("_", " ").replace("-", " ").strip() for folder in folders}
    if not folders:
        raise ValueError(f"{str(path)!r} has no sub-folders; give a folder with one sub-folder of images a class.")
    known = classes or tuple(sorted(set(names.values())))
    keys = {_key(name): position for position, name in enumerate(known)}
    pixels, leaves, ids = [], [], []
    for folder, name in names.items():
        if _key(name) not in keys:
            raise ValueError(
                f"the folder {folder.name!r} in {str(path)!r} is none of the {len(known)} classes of the tree: rename it or add the class."
            )
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                pixels.append(read_image(file, resolution=resolution))
                leaves.append(keys[_key(name)])
                ids.append(f"{folder.name}/{file.name}")
    if not pixels:
        raise ValueError(f"{str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))}): check the path.")
    return Folder(torch.stack(pixels), torch.tensor(leaves), tuple(ids), known)


def read_image(path: Path, *, resolution: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, upright; with `resolution`, its centre square at that side.

    Raises:
        ValueError: not an image, truncated, or above 100 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours, and an error
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(
                        f"{str(path)!r} has {opened.width} x {opened.height} pixels; at most 100 million are read: scale it down."
                    )
                image = ImageOps.exif_transpose(opened)
                image = _flatten(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{str(path)!r} could not be read as an image ({error}): replace or remove it.") from error
    if resolution is not None:
        image = ImageOps.fit(image, (resolution, resolution), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def _flatten(image: Image.Image) -> Image.Image:
    """RGB; transparent pixels become white, 16-bit grey is scaled, not clipped."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.float64)
        image = Image.fromarray((grey / max(1.0, 65535.0) * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _key(name: str) -> str:
    """Class names match whatever their case, spaces, hyphens and underscores."""
    return name.replace("_", " ").replace("-", " ").strip().casefold()
