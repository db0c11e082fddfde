"""A user's folder: every kind of file that people have, and one sentence for what cannot be read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustree.data import Augmented, Decoded, EncodedImages, read_folder, read_image
from robustree.data.decoding import png_bytes
from robustree.data.readers.folder import labelled_files

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _mean(image: Tensor) -> list[int]:
    return [round(v) for v in image.float().mean((1, 2)).tolist()]


def _folder(root: Path, **classes: int) -> Path:
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for position in range(count):
            Image.new("RGB", (10, 8), (20 * number, 10 * position, 0)).save(root / name / f"{position}.png")
    return root


def _refusal(path: Path, *, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        Decoded(read_folder(path, classes), 8)[:]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_are_the_positions_of_the_sorted_folder_names(tmp_path: Path) -> None:
    folder = read_folder(_folder(tmp_path, zebra=1, ape=2, hot_dog=1))
    assert labelled_files(tmp_path)[1] == ("ape", "hot dog", "zebra")
    assert folder.leaves.tolist() == [0, 0, 1, 2]
    assert folder.ids == ("ape/0.png", "ape/1.png", "hot_dog/0.png", "zebra/0.png")
    assert Decoded(folder, 8)[:].shape == (4, 3, 8, 8)


def test_folder_names_match_classes_whatever_case_spaces_hyphens_and_underscores(tmp_path: Path) -> None:
    root = _folder(tmp_path, **{"Hot-Dog": 1, "ICE_CREAM": 1, "Straße": 1})
    folder = read_folder(root, classes=("straße", "ice cream", "hot dog", "a class without images"))
    assert dict(zip(folder.ids, folder.leaves.tolist(), strict=True)) == {
        "Hot-Dog/0.png": 2,
        "ICE_CREAM/0.png": 1,
        "Straße/0.png": 0,
    }


def test_folders_that_name_one_class_are_one_class(tmp_path: Path) -> None:
    folder = read_folder(_folder(tmp_path, Dog=1, dog=2, cat=1))
    assert len(labelled_files(tmp_path)[1]) == 2
    assert sorted(torch.bincount(folder.leaves).tolist()) == [1, 3]


def test_files_that_are_no_images_and_deeper_folders_are_left_alone(tmp_path: Path) -> None:
    root = _folder(tmp_path, dog=1)
    (root / "readme.txt").write_text("hello")
    (root / "dog" / "notes.txt").write_text("hello")
    (root / "dog" / "deeper").mkdir()
    assert read_folder(root).ids == ("dog/0.png",)


def test_the_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 10), RED)
    image.paste(BLUE, (10, 0, 20, 10))
    image.save(tmp_path / "wide.png")
    assert _mean(read_image(tmp_path / "wide.png", resolution=10)) == list(BLUE)
    assert read_image(tmp_path / "wide.png").shape == (3, 10, 30)


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    image.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png")
    assert upright.shape == (3, 8, 4)
    assert _mean(upright[:, :4]) == list(RED)
    assert _mean(upright[:, 4:]) == list(BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (6, 6), (0,) * len(mode))
    image.paste((0,) * (len(mode) - 1) + (255,), (0, 0, 3, 6))
    image.save(tmp_path / "clear.png")
    pixels = read_image(tmp_path / "clear.png")
    assert _mean(pixels[..., :3]) == [0, 0, 0]
    assert _mean(pixels[..., 3:]) == [255, 255, 255]


def test_a_palette_image_has_its_colours_and_its_transparent_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (6, 6), 0)
    image.putpalette([*GREEN, *BLUE])
    image.paste(1, (0, 0, 3, 6))
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=0)
    opaque, clear = read_image(tmp_path / "opaque.png"), read_image(tmp_path / "clear.png")
    assert _mean(opaque[..., 3:]) == list(GREEN)
    assert _mean(clear[..., 3:]) == list(WHITE)
    assert _mean(opaque[..., :3]) == _mean(clear[..., :3]) == list(BLUE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 10], [257 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    assert read_image(tmp_path / f"deep.{suffix}").tolist() == [[[0, 10], [128, 255]]] * 3


def test_black_and_white_grey_and_cmyk(tmp_path: Path) -> None:
    Image.new("1", (4, 4), 1).save(tmp_path / "one.png")
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert _mean(read_image(tmp_path / "one.png")) == [255, 255, 255]
    assert _mean(read_image(tmp_path / "grey.png")) == [77, 77, 77]
    red = _mean(read_image(tmp_path / "print.jpg"))
    assert red[0] >= 250 and max(red[1:]) <= 5


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=50)
    assert _mean(read_image(tmp_path / "moving.gif")) == list(GREEN)


def _attempt(path: Path) -> Tensor | str:
    """The image, or why it was refused."""
    try:
        return read_image(path)
    except ValueError as error:
        return str(error)


def _png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose content is empty."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_image_of_more_than_100_million_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    root = _folder(tmp_path, dog=1)
    (root / "dog" / "huge.png").write_bytes(_png(12000, 9000))
    assert _refusal(root) == (
        f"'{root / 'dog' / 'huge.png'}' has 12000 x 9000 pixels; at most 100 million are read: scale it down."
    )


def test_an_image_that_pillow_itself_calls_a_bomb(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png(60000, 60000))
    with pytest.raises(ValueError, match=r"bomb.png' could not be read as an image \(Image size .* exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_a_text_file_that_is_named_like_an_image(tmp_path: Path) -> None:
    root = _folder(tmp_path, dog=1)
    (root / "dog" / "a.png").write_text("I am a text.")
    message = _refusal(root)
    assert message.startswith(f"'{root / 'dog' / 'a.png'}' could not be read as an image (")
    assert message.endswith("): replace or remove it.")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO"])
def test_formats_that_are_not_read_are_refused_whatever_the_file_is_called(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        Image.new("RGB", (16, 16)).save(file, format=kind)
    with pytest.raises(ValueError, match=r"could not be read as an image \(cannot identify image file"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_a_file_that_was_cut_anywhere_is_read_whole_or_refused_by_name(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    image, stream = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)), io.BytesIO()
    image.save(stream, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    whole, path = stream.getvalue(), tmp_path / f"cut.{suffix}"
    path.write_bytes(whole)
    expected, refusals = read_image(path), []
    for cut in [0, 1, *rng.integers(2, len(whole) - 1, 60).tolist(), len(whole) // 2]:
        path.write_bytes(whole[:cut])
        answer = _attempt(path)
        if isinstance(answer, str):
            refusals.append(answer)
        else:
            assert torch.equal(answer, expected)  # what was lost held no pixels
    assert len(refusals) >= 55
    assert all(text.startswith(f"'{path}' could not be read as an image (") for text in refusals)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_a_file_with_wrong_bytes_is_an_image_or_refused_by_name(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    image, stream = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {} if suffix in ("gif", "bmp") else {"exif": exif.tobytes()}
    image.save(stream, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **extra)
    whole, path = stream.getvalue(), tmp_path / f"wrong.{suffix}"
    for _ in range(80):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(200, len(whole)), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        answer = _attempt(path)
        assert answer.startswith(f"'{path}' ") if isinstance(answer, str) else answer.dtype == torch.uint8


def test_what_is_not_a_folder(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none") == (
        f"'{tmp_path / 'none'}' is not a folder; give a folder with one sub-folder of images a class."
    )


def test_a_folder_without_sub_folders(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert _refusal(tmp_path) == (
        f"'{tmp_path}' has no sub-folders; give a folder with one sub-folder of images a class."
    )


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    assert _refusal(tmp_path) == (
        f"'{tmp_path}' holds no images (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp): check the path."
    )


def test_a_class_that_is_in_no_tree(tmp_path: Path) -> None:
    root = _folder(tmp_path, dog=1, unicorn=1)
    assert _refusal(root, classes=("cat", "dog")) == (
        f"the folder 'unicorn' in '{root}' is none of the 2 classes of the tree: rename it or add the class."
    )


def test_pixels_are_those_of_the_files_whichever_batch_asks_for_them(tmp_path: Path) -> None:
    root = _folder(tmp_path, dog=3, cat=2)
    pixels = Decoded(read_folder(root), 8)
    whole = [read_image(root / name, resolution=8).float() / 255 for name in pixels.images.ids]
    assert len(pixels) == 5
    assert torch.equal(pixels[:], torch.stack(whole))
    assert torch.equal(pixels[3:], torch.stack(whole[3:]))
    assert torch.equal(pixels[torch.tensor([4, 0])], torch.stack([whole[4], whole[0]]))
    assert torch.equal(pixels.take(torch.tensor([4, 1]))[:1], whole[4][None])
    assert pixels[:0].shape == (0, 3, 8, 8)


def test_training_images_are_shifted_mirrored_copies_and_the_generators_alone() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).repeat(3, 16, 1)
    ramp = ramp + 16 * torch.arange(16, dtype=torch.uint8)[:, None] % 250
    content = png_bytes(ramp.float() / 255)
    folder = Augmented(Decoded(EncodedImages("here", ("a/0.png",), torch.tensor([0]), lambda _: content), 16))
    index = torch.zeros(40, dtype=torch.long)
    images = folder.images(index, torch.Generator().manual_seed(1))
    assert torch.equal(images, folder.images(index, torch.Generator().manual_seed(1)))
    padded = torch.nn.functional.pad(ramp[None].float() / 255, (1,) * 4, mode="replicate")[0]
    copies = [padded[:, y : y + 16, x : x + 16] for y in range(3) for x in range(3)]
    mirrored = torch.nn.functional.pad(ramp[None].flip(-1).float() / 255, (1,) * 4, mode="replicate")[0]
    copies += [mirrored[:, y : y + 16, x : x + 16] for y in range(3) for x in range(3)]
    found = [next(k for k, copy in enumerate(copies) if torch.equal(copy, image)) for image in images]
    assert len(set(found)) >= 12  # of the eighteen shifts and mirrors
