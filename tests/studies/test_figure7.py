"""The panels of Figure 7: what is drawn where, and in which colour."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import zflib
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import localisation, units


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(2)
    convs = Conv(6, 5, stride=2, padding=1, pool=True, norm=True), Conv(5, 3, padding=1)
    net = ZFNet(4, geometry=Geometry(32, 28, convs, hidden=(6,))).eval()
    net.classes = ["cat", "dog", "cow", "hen"]
    return net


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def test_a_position_lies_where_its_squares_middle_is(net, ax):
    look = zflib.occlude(net, torch.randn(3, 28, 28), size=7, stride=(5, 7), layer="conv2")
    localisation.heat(look.probability, look, ax, size=7, side=28)
    left, right, bottom, top = ax.images[0].get_extent()
    rows, columns = look.probability.shape
    for (i, j), corner in {(0, 0): (0, 0), (rows - 1, columns - 1): (20, 21), (2, 1): (10, 7)}.items():
        middle = top + (i + 0.5) * (bottom - top) / rows, left + (j + 0.5) * (right - left) / columns
        assert middle == pytest.approx((corner[0] + 3, corner[1] + 3))  # the middle pixel of 7
    assert ax.get_xlim() == (-0.5, 27.5) and ax.get_ylim() == (27.5, -0.5)


def test_one_position_fills_the_picture(net, ax):
    look = zflib.occlude(net, torch.randn(3, 28, 28), size=28, stride=1, layer="conv2")
    localisation.heat(look.probability, look, ax, size=28, side=28)
    assert ax.images[0].get_extent() == [-0.5, 27.5, 27.5, -0.5]


def test_classes_have_a_colour_and_a_name(ax):
    prediction = torch.tensor([[2, 2, 2], [0, 0, 5], [6, 7, 7], [8, 2, 0]])
    corners = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"), dim=-1)
    zero = torch.zeros(4, 3)
    look = zflib.OcclusionMaps(zero, prediction, zero, corners, 0, 0, (0.5, 1.0))
    localisation.class_map(look, list("abcdefghi"), ax, size=2, side=8)
    pixels = ax.images[0].get_array()
    assert [text.get_text() for text in ax.texts] == ["c", "a", "h", "f"]  # by frequency
    assert (pixels[0] == localisation.COLOURS[0]).all() and (pixels[1, 0] == localisation.COLOURS[1]).all()
    assert (pixels[2, 0] == localisation.COLOURS[4]).all() and (pixels[3, 0] == localisation.COLOURS[4]).all()


def test_the_whole_figure(net):
    images = torch.randn(2, 3, 28, 28)
    looks = [zflib.occlude(net, image, size=8, stride=5, layer="conv2") for image in images]
    pool = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    tops = units.Units(net, pool, peaks=zflib.find_peaks(net, pool, layers=["conv2"], k=3))
    tops.unit = lambda layer, channel, unit=tops.unit: unit("conv2", channel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localisation, "tiles", lambda *a, tiles=localisation.tiles: tiles(*a, layer="conv2"))
        axes = localisation.draw(net, images, looks, tops, size=8)
    assert axes.shape == (2, 6) and [ax.get_title() for ax in axes[0]] == list(localisation.PANELS)
    for row, look in zip(axes, looks):
        np.testing.assert_allclose(row[1].images[0].get_array(), look.activity)
        np.testing.assert_allclose(row[4].images[0].get_array(), look.probability)
        assert row[4].get_xlabel() == f"{net.classes[look.label]}: {look.before[0]:.2f}"
        assert row[4].images[0].get_clim() == (0, look.before[0])
    plt.close("all")


def test_tiles_are_framed_first_and_four(net):
    image, pool = torch.randn(3, 28, 28), torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    tops = units.Units(net, pool, peaks=zflib.find_peaks(net, pool, layers=["conv2"], k=3))
    channel = int(tops.peaks["conv2"].values[:, 0].argmax())
    views, pictures = localisation.tiles(net, image, channel, tops, layer="conv2", side=40)
    orange = np.array([255, 127, 14])
    for sheet in (views, pictures):
        assert sheet.shape == (82, 82, 3)
        framed = (sheet == orange).all(axis=-1)
        assert framed[:40, :40].any() and not framed[41:].any() and not framed[:, 41:].any()


def test_a_drop_is_red_about_zero(ax):
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[2:4, 2:4] = True
    localisation.drop_map(torch.linspace(-1, 3, 36).view(6, 6), mask, ax)
    assert ax.images[0].get_clim() == (-3, 3)
    localisation.drop_map(torch.zeros(6, 6), mask, ax)  # nothing dropped: no division by zero
