"""Calmed and lit projections against closed forms, torchvision's and scipy's Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms.functional import gaussian_blur

import zflib
from zflib import show


def spot(side: int = 33) -> torch.Tensor:
    """(3,side,side): one red pixel in the middle."""
    values = torch.zeros(3, side, side)
    values[0, side // 2, side // 2] = 1
    return values


def test_calm_blurs_as_torchvision_does():
    values = torch.randn(3, 40, 40)
    blurred = gaussian_blur(values, [13, 13], [1.5, 1.5])
    assert torch.allclose(show.calm(values, sigma=1.5, colour=1)[:, 8:-8, 8:-8], blurred[:, 8:-8, 8:-8], atol=1e-5)


@pytest.mark.parametrize("side, sigma", [(20, 0.6), (56, 0.6), (300, 2.0)])
def test_large_projections_are_calmed_over_more_pixels(side, sigma):
    values = torch.randn(3, 12, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(show.calm(values), show.calm(values, sigma=sigma))


@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.0])
def test_the_blur_is_a_gaussian_mean_with_the_border_repeated(sigma):
    values, reach = np.random.default_rng(0).random((2, 9, 14)), int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(values, [(0, 0), (reach, reach), (reach, reach)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape, axis=(1, 2))
    assert np.allclose(show.light.blurred(values, sigma), (windows * weights).sum(axis=(-2, -1)), atol=1e-12)


def test_calm_moves_each_colour_towards_the_pixels_mean():
    values = torch.tensor([9.0, 0.0, -3.0]).view(3, 1, 1).expand(3, 5, 5)
    assert show.calm(values)[:, 2, 2].tolist() == pytest.approx([2 + 0.35 * 7, 2 - 0.35 * 2, 2 - 0.35 * 5])
    assert torch.allclose(show.calm(values, colour=0), torch.full((3, 5, 5), 2.0))
    assert torch.allclose(show.calm(spot(), sigma=0, colour=1), spot())


def test_no_energy_is_grey_and_energy_everywhere_is_the_patch():
    patch = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert (show.lit(patch, torch.zeros(3, 20, 30)) == show.GREY).all()
    signs = torch.randn(3, 20, 30).sign()
    assert np.array_equal(show.lit(patch, signs), patch)


def test_lit_is_the_patch_weighted_by_the_root_of_blurred_energy():
    strength = np.sqrt(gaussian_filter(spot()[0].numpy() ** 2, 2.0))
    light = (strength / np.percentile(strength, 98)).clip(0, 1)
    expected = light[..., None] * 228 + (1 - light[..., None]) * 128
    white = np.full((33, 33, 3), 228, np.uint8)
    assert np.abs(show.lit(white, spot()) - expected).max() <= 0.51
    assert show.lit(white, spot())[16, 16, 0] == 228 and show.lit(white, spot())[0, 0, 0] == 128


def test_a_spot_on_a_large_picture_is_still_seen():
    white = np.full((227, 227, 3), 255, np.uint8)
    assert show.lit(white, spot(227))[113, 113, 0] == 255


def test_lit_takes_a_patch_in_the_units_of_the_network():
    net = zflib.scenes56()
    patch = torch.zeros(3, 9, 9)
    expected = net.mean.flatten().round().byte().tolist()
    assert show.lit(patch, torch.ones(3, 9, 9), net=net)[4, 4].tolist() == expected


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="patch and projection must have the same size, got 8x8 and 9x9 pixels"):
        show.lit(np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 9, 9))
    with pytest.raises(ValueError, match=r"projection must be \(3,h,w\), got"):
        show.calm(torch.zeros(9, 9))
