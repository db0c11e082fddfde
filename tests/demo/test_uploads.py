from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustree.data import read_image
from robustree.demo.uploads import MAX_BYTES, read_upload


def test_an_upload_is_read_as_every_other_image_and_deleted(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "fox.jpg"
    Image.fromarray(pixels).save(path)
    wanted = read_image(path, resolution=16)
    sample = read_upload(path, resolution=16)
    assert torch.equal(sample.pixels, wanted.float() / 255)
    assert (sample.name, sample.leaf) == ("fox.jpg", None)
    assert not path.exists()


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100 + ".png")
    Image.new("RGB", (4, 4)).save(path)
    assert read_upload(path, resolution=4).name == "x" * 39 + "…"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) = flush\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", POSTSCRIPT, b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
)
def test_what_is_no_image_gets_a_sentence_without_the_servers_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evil.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^'evil\.png' could not be read as an image") as refusal:
        read_upload(path, resolution=8)
    assert str(tmp_path) not in str(refusal.value)
    assert not path.exists()


def test_what_is_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(b"\0" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match=r"'large\.png' has 10\.0 MB; at most 10 MB are taken"):
        read_upload(path, resolution=8)
    assert not path.exists()
    bomb = tmp_path / "bomb.png"
    Image.new("1", (11_000, 11_000)).save(bomb)
    assert bomb.stat().st_size < MAX_BYTES
    with pytest.raises(ValueError, match=r"'bomb\.png' has 11000 x 11000 pixels; at most 100 million are read"):
        read_upload(bomb, resolution=8)
