"""Composing drawings: what is random is the generator's, and what is audited never changes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from robustree.data import compose, emoji, quickstart_classes, quickstart_drawings, stratified
from robustree.data.drawings import Drawings

# 8 bits, averaged over the 3 x 3 blocks of three audited images, red then green then blue.
GOLDEN = {
    0: "82 86 78 123 161 118 63 96 89 59 55 44 62 87 56 11 40 35 124 111 109 115 97 105 147 128 116",
    261: "37 35 42 42 119 66 30 45 42 139 132 133 144 145 136 147 130 134 125 130 134 131 151 141 125 123 132",
    523: "70 99 130 138 180 150 100 99 135 101 84 83 89 82 82 106 107 105 81 48 43 72 65 51 95 68 74",
}


def _plain(colour: tuple[int, int, int], alpha: Tensor, *, count: int = 4) -> Drawings:
    rgb = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(count, 3, *alpha.shape)
    rgba = torch.cat([rgb, alpha.to(torch.uint8).expand(count, 1, *alpha.shape)], 1)
    return Drawings(rgba, torch.arange(count), tuple(f"plain/{k}" for k in range(count)))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return quickstart_drawings("val").take(torch.arange(12))


@pytest.mark.parametrize("augment", [True, False])
def test_the_same_generator_gives_the_same_images_and_another_gives_others(drawings: Drawings, augment: bool) -> None:
    first, again, other = (compose(drawings, 20, generator=_generator(s), augment=augment) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).all()


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("size", [16, 48, 71])
def test_images_are_what_an_8_bit_file_could_hold(drawings: Drawings, size: int, augment: bool) -> None:
    images = compose(drawings, size, generator=_generator(), augment=augment)
    assert images.shape == (12, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal((images * 255).round() / 255, images)


def test_composing_neither_moves_the_global_generator_nor_the_drawings(drawings: Drawings) -> None:
    state, before = torch.get_rng_state(), drawings.rgba.clone()
    compose(drawings, 16, generator=_generator(), augment=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawings.rgba, before)


@pytest.mark.parametrize("augment", [True, False])
def test_a_transparent_drawing_shows_the_background_alone(augment: bool) -> None:
    """Whatever its hidden colours are."""
    white, black = (
        compose(_plain((c, c, c), torch.zeros(32, 32)), 24, generator=_generator(), augment=augment) for c in (255, 0)
    )
    assert torch.equal(white, black)
    assert (white.amax((2, 3)) > white.amin((2, 3))).any()  # two colours


def test_an_opaque_drawing_covers_the_centre_and_leaves_corners() -> None:
    images = compose(_plain((255, 255, 255), torch.full((32, 32), 255)), 32, generator=_generator(3), augment=False)
    assert (images[..., 10:22, 10:22] == 1).all()  # the smallest scale is 0.75 of the side, the largest shift 6 %
    background = compose(_plain((255,) * 3, torch.zeros(32, 32)), 32, generator=_generator(3), augment=False)
    corner = torch.stack([images[..., y, x] == background[..., y, x] for y in (0, -1) for x in (0, -1)])
    assert corner.all(-1).any(0).all()  # every drawing is smaller than its image somewhere


def test_a_half_transparent_drawing_is_the_mean_of_colour_and_background() -> None:
    clear, half, full = (
        compose(_plain((200, 100, 0), torch.full((32, 32), a)), 32, generator=_generator(), augment=False)
        for a in (0, 51, 255)
    )
    torch.testing.assert_close(half, 0.8 * clear + 0.2 * full, rtol=0, atol=1.01 / 255)


def test_an_unaugmented_drawing_keeps_its_colours() -> None:
    images = compose(_plain((10, 130, 250), torch.full((32, 32), 255)), 32, generator=_generator(), augment=False)
    expected = torch.tensor([10, 130, 250]).view(3, 1, 1).expand(4, 3, 12, 12) / 255
    torch.testing.assert_close(images[..., 10:22, 10:22], expected)


def test_an_unaugmented_drawing_is_never_mirrored() -> None:
    left = torch.zeros(32, 32)
    left[4:28, 4:12] = 255
    shown = compose(_plain((255, 255, 255), left, count=64), 32, generator=_generator(), augment=False)
    hidden = compose(_plain((255, 255, 255), left * 0, count=64), 32, generator=_generator(), augment=False)
    brightened = (shown - hidden).sum(1)
    assert (brightened[..., :16].sum((1, 2)) > brightened[..., 16:].sum((1, 2))).all()


def test_audited_images_never_change() -> None:
    """Golden: means over blocks, so that another processor's rounding of single pixels does not matter."""
    data = emoji().audit(48)
    assert len(data.ids) == 524
    for position, expected in GOLDEN.items():
        blocks = torch.nn.functional.avg_pool2d(data.pixels[position] * 255, 16).flatten()
        assert (blocks - torch.tensor([int(value) for value in expected.split()])).abs().max() <= 1


def test_a_subset_of_the_audit_shows_the_same_pixels() -> None:
    data = emoji("val").audit(16)
    some = data.subset(40)
    positions = [data.ids.index(name) for name in some.ids]
    assert positions == sorted(positions)
    assert torch.equal(some.pixels, data.pixels[positions])
    assert torch.equal(some.leaves, data.leaves[positions])
    assert data.subset(None) is data.subset(len(data.ids)) is data


def test_taking_drawings_keeps_pixels_classes_and_names_together(drawings: Drawings) -> None:
    taken = drawings.take(torch.tensor([7, 2, 7]))
    assert taken.ids == tuple(drawings.ids[k] for k in (7, 2, 7))
    assert torch.equal(taken.rgba[1], drawings.rgba[2])
    assert taken.leaves.tolist() == drawings.leaves[[7, 2, 7]].tolist()
    names = quickstart_classes()
    for name, leaf in zip(drawings.ids, drawings.leaves.tolist(), strict=True):
        assert name.split("/")[1] == names[leaf].replace(" ", "-")


@pytest.mark.parametrize("count", [1, 3, 4, 9, 20, 21])
def test_a_stratified_subset_covers_the_classes_as_evenly_as_it_can(count: int) -> None:
    leaves = torch.tensor([0] * 10 + [1] * 6 + [2] * 4 + [3])
    chosen = stratified(leaves, count, seed=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == count
    got = Counter(leaves[chosen].tolist())
    for leaf, available in Counter(leaves.tolist()).items():  # nobody lacks an image that a richer class could give up
        assert got[leaf] == available or got[leaf] >= max(got.values()) - 1


def test_a_stratified_subset_depends_on_its_seed_alone() -> None:
    leaves = torch.arange(60) % 6
    state = torch.get_rng_state()
    assert torch.equal(stratified(leaves, 12, seed=3), stratified(leaves, 12, seed=3))
    assert not torch.equal(stratified(leaves, 12, seed=3), stratified(leaves, 12, seed=4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [0, -1, 7])
def test_a_subset_of_no_size_or_too_large(count: int) -> None:
    with pytest.raises(ValueError) as caught:
        stratified(torch.arange(6), count)
    assert str(caught.value) == f"{count} images were asked for; the split has 6: ask for 1 to 6."


def test_an_unknown_split() -> None:
    with pytest.raises(ValueError, match="split is 'dev'; the embedded set has train, val, test: choose one of these"):
        quickstart_drawings("dev")  # type: ignore[arg-type]
