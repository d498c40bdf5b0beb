"""Squares to pixels equals captum's map; shares, discs and strangers have closed forms; what Figure 7 draws."""

from __future__ import annotations

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn

import zflib
from zflib import data
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import localisation


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


def test_a_disc_is_in_the_middle_and_as_large_as_its_object():
    masks = torch.zeros(4, 7, 7, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, :, 0] = masks[2, 4:, 4:] = True  # 1, 7 and 9 pixels, and none
    discs = localisation.discs(masks)
    assert discs.sum(dim=(1, 2)).tolist() == [1, 7, 9, 0]
    assert discs[0, 3, 3] and torch.equal(discs[2].nonzero().amin(0), torch.tensor([2, 2]))
    assert torch.equal(discs[2], discs[2].flip(0)) and torch.equal(discs[2], discs[2].T)
    rows, columns = (torch.arange(n) - (n - 1) / 2 for n in (56, 40))
    distance = (rows[:, None] ** 2 + columns**2).sqrt()
    large = localisation.discs(torch.rand(1, 56, 40) < 0.3)[0]
    assert distance[large].max() <= distance[~large].min()  # nothing outside is nearer than anything inside


def test_two_networks_are_compared_on_the_same_objects():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[:, 0] = True  # at the edge, where no pixel of the disc lies
    beside, on = ~masks * 1.0, masks * 2.0
    assert [share.tolist() for share in localisation.on_and_disc(on, masks)] == [[1, 1], [0, 0]]
    lines = localisation.compared({"X": beside, "Y": on}, masks).split("\n")
    assert lines[0].startswith("X: 0.00 on the object, 0.14 in its disc; -0.14 ± 0.00")
    assert lines[1:] == ["Y: 1.00 on the object, 0.00 in its disc; 1.00 ± 0.00 more",
                         "Y minus X: 1.00 ± 0.00; above 0 in 2 of 2"]  # fmt: skip


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
        drop = maps.before[0] - maps.probability
        expected = localisation.to_pixels(drop, maps.corners, size=6, shape=(18, 22))
        torch.testing.assert_close(found.pixels[i], expected, atol=1e-5, rtol=1e-4)
        assert found.largest[i] == pytest.approx(float((maps.before[0] - maps.probability).max()), abs=1e-6)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        localisation.study(net, images, [1], size=6, stride=4, layer="2")


@pytest.fixture(scope="module")
def zfnet():
    torch.manual_seed(2)
    convs = Conv(6, 5, stride=2, padding=1, pool=True, norm=True), Conv(5, 3, padding=1)
    net = ZFNet(4, geometry=Geometry(32, 28, convs, hidden=(6,))).requires_grad_(False).eval()
    net.classes = ["cat", "dog", "cow", "hen"]
    return net


def test_agreement_is_with_the_energy_under_each_square(zfnet):
    images = torch.randn(3, 3, 28, 28)
    look = zflib.occlude(zfnet, images[0], size=8, stride=5, layer="conv2")
    found = localisation.agreement(zfnet, images, look, size=8, stride=5, layer="conv2")
    projections = zflib.Deconvnet(zfnet).project(images, "conv2", torch.full((3,), look.channel))
    for one, projection in zip(found.tolist(), projections):
        energy = [
            [float(projection[:, top : top + 8, left : left + 8].square().sum()) for top, left in row]
            for row in look.corners.tolist()
        ]
        lost = look.before[1] - look.activity
        assert one == pytest.approx(localisation.rank_correlation(torch.tensor(energy), lost), abs=1e-6)


def test_strangers_are_of_other_photographs_drawn_until_enough_are_active(zfnet):
    random = np.random.default_rng(0)
    pictures = {name: random.integers(0, 256, (70, 70, 3), dtype=np.uint8) for name in ("a", "b", "c")}
    pictures["b"][:] = 128  # projections of nothing: silent or flat, never counted
    windows = data.windows(pictures, sizes=(32,), stride=0.5, side=32)
    look = zflib.occlude(zfnet, torch.randn(3, 28, 28), size=8, stride=5, layer="conv2")
    where = {"size": 8, "stride": 5, "layer": "conv2"}
    found = localisation.strangers(zfnet, windows, "a", look, count=1000, **where)
    own = [number for number, picture in enumerate(windows.pictures.tolist()) if picture > 0]
    images = torch.stack([zfnet.preprocess([windows.pixels[n].permute(1, 2, 0).numpy()])[0] for n in own])
    expected = localisation.agreement(zfnet, images, look, **where)
    assert found.sort().values.tolist() == pytest.approx(expected[~expected.isnan()].sort().values.tolist(), abs=1e-5)
    assert torch.equal(localisation.strangers(zfnet, windows, "a", look, count=5, **where), found[:5])
    other = localisation.strangers(zfnet, windows, "a", look, count=1000, seed=1, **where)
    assert not torch.equal(other, found)


def test_a_percentile_counts_those_that_agree_less():
    assert localisation.percentile(0.5, torch.tensor([0.1, 0.4, 0.5, 0.9])) == 50


@pytest.mark.parametrize("name", ["squeezenet", "zfnet56"])
def test_the_shipped_agreement_is_that_of_the_shipped_network(name):
    told = json.loads(localisation.AGREEMENT.read_text())["networks"][name]
    card = json.loads((localisation.AGREEMENT.parent / f"{name}.json").read_text())
    assert told["sha256"] == card["sha256"]
    found = localisation.load_agreement(name)
    assert set(found) == set(data.photo_names()) and all(len(others) == 100 for _, others in found.values())
    wholes = localisation.load_agreement(name, "wholes")
    assert all(wholes[photo][0] == own and 1 <= len(wholes[photo][1]) <= 7 for photo, (own, _) in found.items())


def test_one_shipped_row_is_measured_again():
    net = zflib.load("zfnet56").requires_grad_(False)
    image = net.preprocess(data.photo("coffee"))[0]
    look = zflib.occlude(net, image, size=14, stride=3)
    own, _ = localisation.load_agreement("zfnet56")["coffee"]
    others = net.preprocess([data.photo(name) for name in data.photo_names() if name != "coffee"])
    wholes = localisation.agreement(net, others, look, size=14, stride=3)
    expected = localisation.load_agreement("zfnet56", "wholes")["coffee"][1]
    torch.testing.assert_close(expected, wholes[~wholes.isnan()], atol=2e-3, rtol=0)
    assert own == pytest.approx(float(localisation.agreement(net, image[None], look, size=14, stride=3)), abs=2e-3)


def test_an_unknown_network_is_told_which_were_measured():
    with pytest.raises(ValueError, match="'alexnet56' was not measured; choose one of squeezenet, zfnet56"):
        localisation.load_agreement("alexnet56")


# --- the drawing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def axes():
    return plt.subplots(1, 5)[1]


def test_one_row_of_figure_7(zfnet, axes):
    image = torch.randn(3, 28, 28)
    look = zflib.occlude(zfnet, image, size=8, stride=5, layer="conv2")
    localisation.figure7(zfnet, image, look, axes, size=8, layer="conv2")
    activity, probability = (float(values.min()) for values in (look.activity, look.probability))
    name, before = zfnet.classes[look.label], look.before[0]
    titles = [ax.get_title() for ax in axes]
    assert titles[1] == f"(b) activity lost\nchannel {look.channel}: 1.00 → {activity / look.before[1]:.2f}"
    assert titles[3] == f"(d) p lost\n{name}: {before:.2f} → {probability:.2f}"
    localisation.figure7(zfnet, image, look, axes, size=8, layer="conv2", together=("two", 0.9, look.probability * 0))
    assert axes[3].get_title() == "(d) p lost\ntwo: 0.90 → 0.00"


def test_a_position_lies_where_its_squares_middle_is():
    look = zflib.occlude(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten(), nn.LazyLinear(3)).eval(),
                         torch.randn(3, 28, 28), size=7, stride=(5, 7), layer="0")  # fmt: skip
    left, right, bottom, top = localisation._extent(look.corners, 7)
    rows, columns = look.probability.shape
    for (i, j), corner in {(0, 0): (0, 0), (rows - 1, columns - 1): (20, 21), (2, 1): (10, 7)}.items():
        middle = top + (i + 0.5) * (bottom - top) / rows, left + (j + 0.5) * (right - left) / columns
        assert middle == pytest.approx((corner[0] + 3, corner[1] + 3))  # the middle pixel of 7


def test_classes_have_a_colour_and_a_name(zfnet, axes):
    prediction = torch.tensor([[2, 2, 2], [0, 0, 1], [1, 3, 2]])
    corners = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"), dim=-1)
    zero = torch.zeros(3, 3)
    look = zflib.OcclusionMaps(zero, prediction, zero, corners, 0, 0, (0.5, 1.0))
    localisation.class_map(zfnet, torch.zeros(3, 8, 8), look, axes[0], size=2)
    pixels = axes[0].images[1].get_array()
    assert [text.get_text() for text in axes[0].texts] == ["cow", "cat", "dog", "hen"]  # by frequency
    assert (pixels[0] == localisation.COLOURS[0]).all() and (pixels[1, 0] == localisation.COLOURS[1]).all()


def test_a_drop_by_pixel_is_red_where_it_is(axes):
    pixels, mask = torch.zeros(6, 6), torch.zeros(6, 6, dtype=torch.bool)
    pixels[2, 4], mask[2:4, 2:4] = 1, True
    white = np.full((6, 6, 3), 255, np.uint8)
    localisation.outlined(white, pixels, [mask, ~mask], axes[0])
    drawn = np.asarray(axes[0].images[0].get_array())
    red = (drawn != 255).any(axis=-1)
    assert red[200:300, 400:500].all() and red.sum() == 100 * 100 and len(axes[0].collections) == 2
    localisation.outlined(white, pixels * 0, [mask], axes[1])  # nothing dropped: no division by zero


def test_the_two_plots_count_and_name(axes):
    shares = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([0.1, 0.4, 0.4])
    localisation.plot_shares(*shares, ["face", "cup", "car"], axes[0])
    assert axes[0].get_title() == "2 scenes above the line, 1 not"
    assert {text.get_text() for text in axes[0].texts} == {"face", "cup", "car"}
    found = {"cat": (0.5, torch.tensor([0.1, 0.9])), "cup": (0.0, torch.tensor([0.1, 0.9]))}
    localisation.plot_agreement(found, axes[1])
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["cup", "cat"]
    assert [text.get_text() for text in axes[1].texts] == ["above 0 of 100", "above 50 of 100"]
    wholes = {"cat": (0.5, torch.tensor([0.1, 0.2, 0.9])), "cup": (0.0, torch.tensor([-0.5]))}
    localisation.plot_agreement(found, axes[2], wholes)
    assert [text.get_text() for text in axes[2].texts] == ["above 0 of 100, 1 of 1", "above 50 of 100, 2 of 3"]
