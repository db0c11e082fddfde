"""A user's own images: a folder with one sub-folder a class, read once, kept as 8-bit pixels."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read, whatever a file is called: no format whose reader starts other programs."""
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

    With `classes`, labels are their positions and every sub-folder must be one of them; otherwise the sorted folder
    names are the classes. The shorter side is scaled to `resolution`, the centre is cut out.

    Raises:
        ValueError: no such folder, no images, an unknown class, or an unreadable image (named).
    """
    files, known = labelled_files(path, classes)
    return Folder(
        torch.stack([read_image(file, resolution=resolution) for file, _ in files]),
        torch.tensor([leaf for _, leaf in files]),
        tuple(f"{file.parent.name}/{file.name}" for file, _ in files),
        known,
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
    known = classes or tuple(sorted({_key(name): name for name in names.values()}.values()))
    keys = {_key(name): position for position, name in enumerate(known)}
    for folder, name in names.items():
        if _key(name) not in keys:
            raise ValueError(
                f"the folder {folder.name!r} in {str(path)!r} is none of the {len(known)} classes of the tree: "
                "rename it or add the class."
            )
    files = tuple((file, keys[_key(name)]) for folder, name in names.items() for file in image_files(folder))
    if not files:
        raise ValueError(f"{str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))}): check the path.")
    return files, known


def image_files(folder: Path) -> tuple[Path, ...]:
    """The image files directly in a folder, by name."""
    return tuple(sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES))


def read_image(path: Path, *, resolution: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, upright; with `resolution`, its centre square at that side.

    Raises:
        ValueError: not an image, truncated, or above 100 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours, and an error
            with Image.open(path, formats=FORMATS) as opened:
                width, height = opened.size
                small = width * height <= MAX_PIXELS
                image = _flatten(ImageOps.exif_transpose(opened)) if small else None
    except Exception as error:  # Pillow lets damaged files raise almost anything, and names none of them
        raise ValueError(f"{str(path)!r} could not be read as an image ({error}): replace or remove it.") from error
    if image is None:
        raise ValueError(f"{str(path)!r} has {width} x {height} pixels; at most 100 million are read: scale it down.")
    if resolution is not None:
        image = ImageOps.fit(image, (resolution, resolution), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def png_bytes(image: Tensor) -> bytes:
    """An image (3, H, W) in [0, 1] as a PNG file; multiples of 1/255 are kept exactly."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


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
