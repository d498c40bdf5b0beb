"""The drop under a square: white where nothing is lost, dark red where all is, each where its square's middle lies."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pytest
import torch

import zflib
from zflib import show
from zflib.show.drops import LOSS

WHITE = np.full((20, 20, 3), 255, np.uint8)
CORNERS = torch.stack(torch.meshgrid(torch.arange(0, 17, 4), torch.arange(0, 17, 4), indexing="ij"), dim=-1)


def drawn(values: torch.Tensor, **settings) -> np.ndarray:
    return np.asarray(show.drop(WHITE, 0.8, values, corners=CORNERS, size=4, **settings).images[0].get_array())


def test_nothing_lost_is_the_pale_photograph_and_so_is_a_gain():
    assert (drawn(torch.full((5, 5), 0.8)) == 255).all()
    assert (drawn(torch.full((5, 5), 0.9)) == 255).all()
    black = show.drop(WHITE * 0, 0.8, torch.full((5, 5), 0.8), corners=CORNERS, size=4).images[0].get_array()
    assert (np.asarray(black) == round(0.5 * 255)).all()


def test_each_square_is_red_where_it_stood():
    values = torch.full((5, 5), 0.8)
    values[1, 3] = 0.0  # rows 4 to 8, columns 12 to 16
    pixels = drawn(values)
    dark = np.round(np.array(LOSS(1.0)[:3]) * 255)
    assert pixels.shape == (600, 600, 3)
    assert (pixels[120:240, 360:480] == dark).all() and (pixels == 255).all(axis=2).sum() == 600**2 - 120**2


def test_full_stretches_the_colours_and_the_colour_bar():
    values = torch.full((5, 5), 0.7)
    assert np.array_equal(drawn(values, full=0.1)[300, 300], np.round(np.array(LOSS(1.0)[:3]) * 255))
    ax = show.drop(WHITE, 0.8, values, corners=CORNERS, size=4, full=0.1, what="activity lost")
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == (0, 0.1) and bar.get_ylabel() == "activity lost"


def test_the_frame_and_the_title_name_the_square_that_takes_most():
    values = torch.full((5, 5), 0.8)
    values[2, 1] = 0.02
    ax = show.drop(WHITE, 0.8, values, corners=CORNERS, size=4, title="disk brake")
    (frame,) = ax.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (3.5, 7.5, 4, 4)
    assert ax.get_title() == "disk brake: 0.80 → 0.02"


def test_it_takes_what_occlude_gives():
    torch.manual_seed(0)
    net = zflib.scenes56().eval()
    image = torch.randn(3, 56, 56)
    look = zflib.occlude(net, image, size=28, stride=14)
    ax = show.drop(image, look.before[0], look.probability, corners=look.corners, size=28, net=net)
    assert ax.images[0].get_array().shape == (600, 600, 3)
    with pytest.raises(ValueError, match=r"corners must be \(2, 2, 2\) for values \(2, 2\), got \(5, 5, 2\)"):
        show.drop(image, 0.5, torch.zeros(2, 2), corners=CORNERS, size=28, net=net)
