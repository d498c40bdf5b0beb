"""How much of a lit patch is geometry: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zflib
from zflib.studies import light
from zflib.studies.units import Units


def test_a_bell_correlates_with_the_middle_and_a_ramp_does_not():
    bell, ramp = light.bell_of((20, 30)), np.tile(np.arange(30.0), (20, 1))
    patches = torch.ones(3, 3, 20, 30)
    found = light.measure(patches, np.stack([bell, ramp, 1 - bell]))
    assert found.middle == pytest.approx([1, 0, -1], abs=1e-9)
    assert np.isnan(found.contrast).all()  # flat patches have none
    assert bell[9, 14] == bell.max() == pytest.approx(np.exp(-(0.5**2) / 2 * (1 / 25 + 1 / 56.25)))


def test_light_that_follows_the_contrast_is_found():
    patch = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, 40)
    found = light.measure(patch, light.contrast(patch[0])[None])
    assert found.contrast == pytest.approx([1])


def test_contrast_is_the_local_standard_deviation():
    steps = torch.tensor([0.0, 2.0]).repeat(20).expand(3, 40, 40)  # columns 0 and 2: spread 1 about their mean
    assert light.contrast(steps)[20, 20] == pytest.approx(1, abs=0.01)
    assert light.contrast(torch.full((3, 9, 9), 7.0)).max() < 1e-6


def test_pixels_beyond_the_image_do_not_count():
    patch = torch.ones(1, 3, 10, 10)
    patch[..., 5:] = 0
    values = np.random.default_rng(0).random((1, 10, 10))
    other = values.copy()
    other[..., 5:] = 9
    one, two = light.measure(patch, values), light.measure(patch, other)
    assert one.middle == two.middle and one.brightest == two.brightest


def test_the_brightest_fifth():
    assert light.brightest(np.ones(100)) == pytest.approx(0.2)
    assert light.brightest(np.repeat([0.0, 1.0], [80, 20])) == 1
    assert np.isnan(light.brightest(np.zeros(10)))


def test_relative_light_takes_away_what_all_share():
    bell = light.bell_of((8, 8))
    assert light.relative(np.stack([bell, 3 * bell]))[:, 3, 3] == pytest.approx([0.5, 1.5])
    assert np.allclose(light.relative(np.stack([bell, bell]))[bell[None].repeat(2, 0) > bell.max() / 20], 1)


def test_of_channels_measures_each_of_their_images_and_a_channel_agrees_with_itself():
    torch.manual_seed(0)
    net = zflib.scenes56().eval()
    units = Units(net, torch.randn(12, 3, 56, 56), layers=["conv2"])
    one, two, pairs = light.of_channels(units, "conv2", [3, 5])
    assert one.middle.shape == two.brightest.shape == pairs.shape == (18,)
    assert light.other_channels(units.unit("conv2", 3), 3) == pytest.approx(np.ones(9))
