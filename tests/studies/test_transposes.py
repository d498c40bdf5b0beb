"""Orthonormal waves against scipy's DCT, and the arrows of the two views of a stamp."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch.nn import functional as F

from zflib import show
from zflib.studies import transposes


@pytest.mark.parametrize("side", [2, 4])
def test_waves_are_orthonormal_and_as_many_as_numbers(side):
    waves = transposes.cosine_waves(side)
    assert waves.shape == (3 * side**2, 3, side, side)
    rows = waves.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-6)


def test_waves_are_the_dct_slow_ones_first():
    patch = np.random.default_rng(0).normal(size=(4, 4))
    image = torch.zeros(1, 3, 4, 4)
    image[0, 1] = torch.from_numpy(patch)  # green
    values = F.conv2d(image, transposes.cosine_waves(4))[0, :, 0, 0].view(16, 3)
    wanted = dctn(patch, norm="ortho")
    assert np.allclose(values[0, 1], wanted[0, 0], atol=1e-5) and np.allclose(values[-1, 1], wanted[3, 3], atol=1e-5)
    assert np.allclose(sorted(values[:, 1].tolist()), sorted(wanted.flatten()), atol=1e-5)
    assert not values[:, [0, 2]].any()


def test_arrows_leave_the_activation_and_reach_the_pixel_and_the_followed_one_is_the_same():
    ax = transposes.two_views(torch.arange(1.0, 10).view(3, 3))
    arrows = [text for text in ax.texts if hasattr(text, "arrow_patch") and text.arrow_patch is not None]
    followed = [a for a in arrows if a.arrow_patch.get_edgecolor()[:3] == plt.matplotlib.colors.to_rgb(show.ORANGE)]
    steps = [np.subtract(arrow.xy, arrow.xyann).round(3).tolist() for arrow in followed]
    assert len(arrows) == 16 and len(steps) == 2 and steps[0] == steps[1] and steps[0][0] < 0 > steps[0][1]
