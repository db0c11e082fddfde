"""Image files become pixels when a batch asks for them; nothing is kept."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from robustree.data.encoded import EncodedImages

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read, whatever a file is called: no format whose reader starts other programs."""
MAX_PIXELS = 100_000_000


class Pixels(Protocol):
    """Images (N, 3, H, W) in [0, 1] of which a batch is made when it is asked for; a tensor is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Decoded:
    """The images of files, RGB, upright, their centre square at side `resolution`; `[index]` decodes these and no
    others.

    Raises:
        ValueError: on reading, an image that cannot be decoded (named).
    """

    images: EncodedImages
    resolution: int

    def __len__(self) -> int:
        return len(self.images.ids)

    def __getitem__(self, index: slice | Tensor, /) -> Tensor:
        positions = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        if not len(positions):
            return torch.zeros(0, 3, self.resolution, self.resolution)
        contents = [self.images.read(position) for position in positions]
        names = [f"{self.images.where}/{self.images.ids[position]}" for position in positions]
        with _large_images():
            decoded = [_decode(*each, self.resolution) for each in zip(contents, names, strict=True)]
        return torch.stack(decoded).float() / 255

    def take(self, index: Tensor) -> Decoded:
        """The images at `index` (M,), still in their files."""
        return Decoded(self.images.take(index), self.resolution)


def batches(pixels: Pixels, size: int) -> Iterator[Tensor]:
    """The images in order, at most `size` at a time."""
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]


def read_image(path: Path, *, resolution: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, upright; with `resolution`, its centre square at that side.

    Raises:
        ValueError: not an image, truncated, or above 100 million pixels.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{str(path)!r} could not be read as an image ({error.strerror}): check the path.") from error
    return decode(content, str(path), resolution=resolution)


def decode(content: bytes, name: str, *, resolution: int | None = None) -> Tensor:
    """The bytes of an image file as (3, H, W) uint8; see `read_image`. `name` is for error messages."""
    with _large_images():
        return _decode(content, name, resolution)


@contextmanager
def _large_images() -> Iterator[None]:
    """Pillow does not warn of images that it still reads: the limit here is ours, and an error.

    What is warned of is settled for all threads at once, so threads that read ahead leave it alone: there it warns.
    """
    if current_thread() is not main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode(content: bytes, name: str, resolution: int | None) -> Tensor:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            width, height = opened.size
            small = width * height <= MAX_PIXELS
            image = _flatten(ImageOps.exif_transpose(opened)) if small else None
    except Exception as error:  # Pillow lets damaged files raise almost anything, and names none of them
        raise ValueError(f"{name!r} could not be read as an image ({error}): replace or remove it.") from error
    if image is None:
        raise ValueError(f"{name!r} has {width} x {height} pixels; at most 100 million are read: scale it down.")
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
