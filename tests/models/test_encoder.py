"""Resizing is part of the model: it must be CLIP's, differentiable, and nothing at all at native size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustree.models.encoder import ImageEncoder, Preprocessing, fit

SIZES = [(40, 61), (61, 40), (16, 17), (9, 30), (7, 7), (200, 133)]


def _preprocessing(*, crop: bool, resolution: int = 16) -> Preprocessing:
    return Preprocessing(resolution=resolution, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop=crop)


def _pixels(height: int, width: int) -> np.ndarray:
    """Noise, within bounds that enlarging does not overshoot, because PIL clips after each of its two passes."""
    return np.random.default_rng(height * width).integers(60, 196, (height, width, 3), dtype=np.uint8)


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("size", SIZES)
def test_cropping_is_clips_own_preprocessing(size: tuple[int, int]) -> None:
    """Against transformers' PIL processor, which rounds to 8 bits twice."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": 16, "width": 16}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square, do_normalize=False)
    pixels = _pixels(*size)
    expected = torch.as_tensor(np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]))
    assert (fit(_tensor(pixels), _preprocessing(crop=True))[0] - expected).abs().max() <= 2 / 255


@pytest.mark.parametrize("size", SIZES)
def test_squashing_is_pils_bicubic_on_both_sides(size: tuple[int, int]) -> None:
    pixels = _pixels(*size)
    expected = _tensor(np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)))
    assert (fit(_tensor(pixels), _preprocessing(crop=False)) - expected).abs().max() <= 2 / 255


@pytest.mark.parametrize("crop", [True, False])
def test_native_size_is_the_identity(crop: bool) -> None:
    images = torch.rand(2, 3, 16, 16)
    assert fit(images, _preprocessing(crop=crop)) is images


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_result_is_an_image_at_the_towers_size(size: tuple[int, int], crop: bool) -> None:
    """Also where bicubic interpolation overshoots: at edges between black and white."""
    pixels = np.where(_pixels(*size) < 128, 0, 255).astype(np.uint8)
    result = fit(_tensor(pixels), _preprocessing(crop=crop))
    assert result.shape == (1, 3, 16, 16)
    assert result.min() >= 0 and result.max() <= 1


def test_a_constant_image_stays_constant() -> None:
    for crop in (True, False):
        result = fit(torch.full((1, 3, 31, 20), 0.37), _preprocessing(crop=crop))
        torch.testing.assert_close(result, torch.full((1, 3, 16, 16), 0.37))


def test_cropping_sees_the_centre_only_and_squashing_everything() -> None:
    images = torch.full((1, 3, 16, 48), 0.5, requires_grad=True)
    for crop, seen in ((True, 16), (False, 48)):
        (gradient,) = torch.autograd.grad(fit(images, _preprocessing(crop=crop)).sum(), images)
        columns = gradient.abs().sum((0, 1, 2)) > 1e-6
        assert int(columns.sum()) == seen
    assert columns.all()


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (4, 9), (3, 3)])
def test_the_gradient_through_resizing_is_the_finite_difference(size: tuple[int, int], crop: bool) -> None:
    """Values away from 0 and 1, where the clamp has its corners."""
    draw = torch.Generator().manual_seed(0)
    images = (0.4 + 0.2 * torch.rand(1, 3, *size, generator=draw, dtype=torch.float64)).requires_grad_(True)
    preprocessing = _preprocessing(crop=crop, resolution=4)
    assert torch.autograd.gradcheck(lambda x: fit(x, preprocessing), images)


def test_the_whole_encoder_differentiates_to_the_pixels_at_another_size() -> None:
    class Tower(nn.Module):
        def forward(self, pixel_values: Tensor) -> Tower:
            self.pooler_output = pixel_values.flatten(1).tanh()
            return self

    draw = torch.Generator().manual_seed(0)
    encoder = ImageEncoder(Tower(), nn.Identity(), _preprocessing(crop=False, resolution=4)).double()
    images = (0.4 + 0.2 * torch.rand(1, 3, 6, 5, generator=draw, dtype=torch.float64)).requires_grad_(True)
    assert torch.autograd.gradcheck(encoder, images)
    (gradient,) = torch.autograd.grad(encoder(images).sum(), images)
    assert (gradient != 0).all()


def test_normalisation_is_by_channel_in_units_of_pixels() -> None:
    class Tower(nn.Module):
        def forward(self, pixel_values: Tensor) -> Tower:
            self.pooler_output = pixel_values.mean((2, 3))
            return self

    encoder = ImageEncoder(Tower(), nn.Identity(), _preprocessing(crop=True))
    torch.testing.assert_close(encoder(torch.ones(1, 3, 16, 16)), torch.tensor([[0.5 / 0.2, 0.6 / 0.3, 0.7 / 0.4]]))
    assert encoder.state_dict() == {}  # mean and std belong to the preprocessing, not to the weights
