"""Squares to pixels equals captum's map; the share on the object has closed forms; what Figure 7 draws, and where."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn

import zflib
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import localisation, units


@pytest.fixture
def net():
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.LazyLinear(6)
    net = nn.Sequential(*layers).eval()
    with torch.no_grad():
        net(torch.randn(1, 3, 18, 22))
        net[-1].weight *= 8  # so that the square changes something
    return net


def captum_map(net, image, label, size, stride):
    method = Occlusion(lambda images: net(images).softmax(-1))
    attribution = method.attribute(image[None], (3, *size), strides=(3, *stride), target=label, baselines=0)
    return attribution[0].detach()


@pytest.mark.parametrize(
    ("size", "stride"), [((6, 6), (3, 4)), ((2, 4), (2, 3)), ((18, 22), (1, 1)), ((3, 10), (3, 6))]
)
def test_it_is_captums_map_where_the_stride_fits(net, size, stride):
    image = torch.randn(3, 18, 22)
    maps = zflib.occlude(net, image, size=size, stride=stride, layer="2")
    drop = maps.before[0] - maps.probability
    ours = localisation.to_pixels(drop, maps.corners, size=size, shape=(18, 22))
    theirs = captum_map(net, image, maps.label, size, stride)
    covered = localisation.to_pixels(torch.ones_like(drop), maps.corners, size=size, shape=(18, 22)) > 0
    assert drop.abs().max() > 0.01
    for channel in theirs:  # all three colours are covered at once and get the same numbers
        torch.testing.assert_close(ours[covered], channel[covered], rtol=1e-4, atol=1e-6)
    assert (ours[~covered] == 0).all()


def test_captums_last_squares_hang_over_the_edge(net):
    image = torch.randn(3, 18, 22)
    maps = zflib.occlude(net, image, size=6, stride=5, layer="2")  # 12 and 16 are no multiples of 5
    ours = localisation.to_pixels(maps.before[0] - maps.probability, maps.corners, size=6, shape=(18, 22))
    theirs = captum_map(net, image, maps.label, (6, 6), (5, 5))[0]
    assert (ours[16:] == 0).all() and theirs[16:].abs().max() > 1e-4  # rows that no square inside the image reaches
    torch.testing.assert_close(ours[:10, :15], theirs[:10, :15], rtol=1e-4, atol=1e-6)


def test_a_pixel_is_the_mean_of_its_squares():
    corners = torch.tensor([[[0, 0], [0, 2]]])
    pixels = localisation.to_pixels(torch.tensor([[3.0, -1.0]]), corners, size=(1, 3), shape=(2, 6))
    assert pixels.tolist() == [[3.0, 3.0, 1.0, -1.0, -1.0, 0.0], [0.0] * 6]


@pytest.mark.parametrize("corners, size, word", [
    (torch.zeros(3, 2, 2).long(), 2, "corners must be"),
    (torch.zeros(1, 1, 2).long(), 9, "size must be .* at most 8x8, got 9"),
])  # fmt: skip
def test_to_pixels_answers_bad_input_in_one_sentence(corners, size, word):
    with pytest.raises(ValueError, match=word):
        localisation.to_pixels(torch.zeros(1, 1), corners, size=size, shape=(8, 8))


def test_shares_on_the_object():
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1:3, 2:] = True  # 6 of 20 pixels
    assert localisation.energy_in_mask(torch.full((4, 5), 0.7), mask) == pytest.approx(0.3)
    assert localisation.energy_in_mask(mask.float(), mask) == 1
    assert localisation.energy_in_mask((~mask).float(), mask) == 0
    rise = torch.where(mask, 1.0, -50.0)  # a probability that rises off the object is no drop there
    assert localisation.energy_in_mask(rise, mask) == 1
    half = mask * 1.0
    half[0, 0] = 6.0
    assert localisation.energy_in_mask(torch.stack([half, mask * 2.0]), mask).tolist() == [0.5, 1.0]
    assert localisation.energy_in_mask(-mask.float(), mask).isnan()


def test_shuffled_masks_are_that_of_the_other_masks():
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[2, 1, 1] = True
    assert localisation.shuffled_masks(masks.float(), masks).tolist() == [0.5, 0.5, 0.0]


def test_rank_correlation_is_about_the_order_alone():
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert localisation.rank_correlation(one, one**3) == pytest.approx(1)
    assert localisation.rank_correlation(one, -one) == pytest.approx(-1)
    tied = torch.tensor([[0.0, 0.0], [0.0, 1.0]])  # its ranks are 2, 2, 2, 4
    assert localisation.rank_correlation(one, tied) == pytest.approx(3 / 15**0.5)
    assert math.isnan(localisation.rank_correlation(one, torch.ones(2, 2)))


def test_energy_under_the_square():
    projections = torch.randn(2, 3, 9, 9)
    found = localisation.under_square(projections, 4, 2)
    assert found.shape == (2, 3, 3)
    assert found[1, 2, 1] == pytest.approx(float(projections[1, :, 4:8, 2:6].square().sum()), rel=1e-5)


def test_a_study_is_one_occlusion_per_image(net):
    images, labels = torch.randn(2, 3, 18, 22), [4, 1]
    found = localisation.study(net, images, labels, size=6, stride=4, layer="2", fill=0.5)
    for i, label in enumerate(labels):
        maps = zflib.occlude(net, images[i], size=6, stride=4, layer="2", fill=0.5, label=label)
        for ours, values, before in zip(
            (found.probability, found.activity), (maps.probability, maps.activity), maps.before
        ):
            torch.testing.assert_close(
                ours[i],
                localisation.to_pixels(before - values, maps.corners, size=6, shape=(18, 22)),
                atol=1e-5,
                rtol=1e-4,
            )
        assert found.largest[i] == pytest.approx(float((maps.before[0] - maps.probability).max()), abs=1e-6)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        localisation.study(net, images, [1], size=6, stride=4, layer="2")


def test_stories_compare_with_the_own_projection_and_the_others(net):
    images = torch.randn(3, 3, 18, 18)
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.LazyLinear(6)).eval()
    small(images)
    looks = [zflib.occlude(small, image, size=6, stride=3, layer="2") for image in images]
    rows = localisation.stories(small, images, looks, size=6, stride=3, layer="2")
    channels = torch.tensor([look.channel for look in looks])
    energy = localisation.under_square(zflib.Deconvnet(small).project(images, "2", channels), 6, 3)
    lost = looks[1].before[1] - looks[1].activity
    wanted = [localisation.rank_correlation(energy[i], lost) for i in range(3)]
    sunk = looks[1].before[0] - looks[1].probability
    assert rows[1].tolist() == pytest.approx(
        [wanted[1], (wanted[0] + wanted[2]) / 2, localisation.rank_correlation(sunk, lost)], abs=1e-5
    )


# --- the drawing -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zfnet():
    torch.manual_seed(2)
    convs = Conv(6, 5, stride=2, padding=1, pool=True, norm=True), Conv(5, 3, padding=1)
    net = ZFNet(4, geometry=Geometry(32, 28, convs, hidden=(6,))).eval()
    net.classes = ["cat", "dog", "cow", "hen"]
    return net


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def test_a_position_lies_where_its_squares_middle_is(zfnet, ax):
    look = zflib.occlude(zfnet, torch.randn(3, 28, 28), size=7, stride=(5, 7), layer="conv2")
    localisation.heat(look.probability, look, ax, size=7, side=28)
    left, right, bottom, top = ax.images[0].get_extent()
    rows, columns = look.probability.shape
    for (i, j), corner in {(0, 0): (0, 0), (rows - 1, columns - 1): (20, 21), (2, 1): (10, 7)}.items():
        middle = top + (i + 0.5) * (bottom - top) / rows, left + (j + 0.5) * (right - left) / columns
        assert middle == pytest.approx((corner[0] + 3, corner[1] + 3))  # the middle pixel of 7
    assert ax.get_xlim() == (-0.5, 27.5) and ax.get_ylim() == (27.5, -0.5)


def test_one_position_fills_the_picture(zfnet, ax):
    look = zflib.occlude(zfnet, torch.randn(3, 28, 28), size=28, stride=1, layer="conv2")
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


def test_the_whole_figure(zfnet):
    images = torch.randn(2, 3, 28, 28)
    looks = [zflib.occlude(zfnet, image, size=8, stride=5, layer="conv2") for image in images]
    pool = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    tops = units.Units(zfnet, pool, peaks=zflib.find_peaks(zfnet, pool, layers=["conv2"], k=3))
    tops.unit = lambda layer, channel, unit=tops.unit: unit("conv2", channel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localisation, "tiles", lambda *a, tiles=localisation.tiles: tiles(*a, layer="conv2"))
        axes = localisation.plot(zfnet, images, looks, tops, size=8)
    assert axes.shape == (2, 6) and [ax.get_title() for ax in axes[0]] == list(localisation.PANELS)
    for row, look in zip(axes, looks):
        np.testing.assert_allclose(row[1].images[0].get_array(), look.activity)
        np.testing.assert_allclose(row[4].images[0].get_array(), look.probability)
        assert row[4].get_xlabel() == f"{zfnet.classes[look.label]}: {look.before[0]:.2f}"
        assert row[4].images[0].get_clim() == (0, look.before[0])
    plt.close("all")


def test_tiles_are_framed_first_and_four(zfnet):
    image, pool = torch.randn(3, 28, 28), torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    tops = units.Units(zfnet, pool, peaks=zflib.find_peaks(zfnet, pool, layers=["conv2"], k=3))
    channel = int(tops.peaks["conv2"].values[:, 0].argmax())
    views, pictures = localisation.tiles(zfnet, image, channel, tops, layer="conv2", side=40)
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
