"""Rounding to 8 bits: a linear victim whose decision is known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustree.attacks import Threat
from robustree.attacks.rounding import round_to_bytes

CLEAN = torch.full((1, 3, 2, 2), 100 / 255)


def _moved(by: float) -> Tensor:
    """The clean image with every value moved by so many 255ths."""
    return CLEAN + by / 255


def _above(value: float):
    """The attack works where the mean is above so many 255ths."""
    return lambda x: x.flatten(1).double().mean(1) * 255 > value - 1e-4


@pytest.mark.parametrize(
    ("by", "needed", "manner", "byte"),
    [
        (2.6, 103, "nearest", 103),  # the nearest byte works
        (2.4, 103, "outward", 103),  # 102 does not, 103 is one further out
        (-2.4, 98, "nearest", 98),  # the sign of the change does not matter
        (3.6, 103.5, "nearest", 104),
    ],
)
def test_the_first_way_that_works_is_taken(by: float, needed: float, manner: str, byte: int) -> None:
    rounded = round_to_bytes(_moved(by), CLEAN, Threat(eps=4 / 255), works=_above(needed))
    assert rounded.manners == (manner,) and bool(rounded.kept[0])
    assert torch.equal((rounded.images * 255).round(), torch.full_like(CLEAN, byte))


def test_changes_never_pass_eps() -> None:
    threat = Threat(eps=3.5 / 255)
    rounded = round_to_bytes(_moved(3.5), CLEAN, threat, works=_above(104))
    assert not bool(rounded.kept[0])  # 104 would work, but 3.5 allows 103
    assert rounded.images.max() * 255 == pytest.approx(103) and bool(threat.contains(rounded.images, CLEAN)[0])


def test_l2_goes_inward_when_the_nearest_byte_leaves_the_ball() -> None:
    threat = Threat(eps=12**0.5 * 1.9 / 255, norm="l2")
    rounded = round_to_bytes(_moved(1.9), CLEAN, threat, works=_above(100.5))
    assert rounded.manners == ("inward",) and bool(rounded.kept[0])
    assert bool(threat.contains(rounded.images, CLEAN)[0])


def test_images_of_a_batch_are_rounded_on_their_own() -> None:
    clean = CLEAN.expand(2, -1, -1, -1)
    made = torch.cat([_moved(2.4), _moved(2.6)])
    rounded = round_to_bytes(made, clean, Threat(eps=4 / 255), works=_above(103))
    assert rounded.manners == ("outward", "nearest") and bool(rounded.kept.all())


def test_an_eps_below_one_byte_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eps is 0\.5/255; an 8-bit image changes by 1/255 at least"):
        round_to_bytes(CLEAN, CLEAN, Threat(eps=0.5 / 255), works=_above(0))
