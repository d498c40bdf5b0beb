"""Squares to pixels equals captum's map; the share on the object has closed forms."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Occlusion
from torch import nn

import zflib
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
    ours = localisation.spread(drop, maps.corners, size=size, shape=(18, 22))
    theirs = captum_map(net, image, maps.label, size, stride)
    covered = localisation.spread(torch.ones_like(drop), maps.corners, size=size, shape=(18, 22)) > 0
    assert drop.abs().max() > 0.01
    for channel in theirs:  # all three colours are covered at once and get the same numbers
        torch.testing.assert_close(ours[covered], channel[covered], rtol=1e-4, atol=1e-6)
    assert (ours[~covered] == 0).all()


def test_captums_last_squares_hang_over_the_edge(net):
    image = torch.randn(3, 18, 22)
    maps = zflib.occlude(net, image, size=6, stride=5, layer="2")  # 12 and 16 are no multiples of 5
    ours = localisation.spread(maps.before[0] - maps.probability, maps.corners, size=6, shape=(18, 22))
    theirs = captum_map(net, image, maps.label, (6, 6), (5, 5))[0]
    assert (ours[16:] == 0).all() and theirs[16:].abs().max() > 1e-4  # rows that no square inside the image reaches
    torch.testing.assert_close(ours[:10, :15], theirs[:10, :15], rtol=1e-4, atol=1e-6)


def test_a_pixel_is_the_mean_of_its_squares():
    corners = torch.tensor([[[0, 0], [0, 2]]])
    pixels = localisation.spread(torch.tensor([[3.0, -1.0]]), corners, size=(1, 3), shape=(2, 6))
    assert pixels.tolist() == [[3.0, 3.0, 1.0, -1.0, -1.0, 0.0], [0.0] * 6]


@pytest.mark.parametrize("arguments, word", [
    ((torch.zeros(2, 3), torch.zeros(3, 2, 2).long(), 2, (8, 8)), "corners"),
    ((torch.zeros(1, 1), torch.full((1, 1, 2), 7), 2, (8, 8)), "shape"),
    ((torch.zeros(1, 1), torch.full((1, 1, 2), -1), 2, (8, 8)), "shape"),
    ((torch.zeros(1, 1), torch.zeros(1, 1, 2).long(), -2, (8, 8)), "size must be .* at most 8x8, got -2"),
    ((torch.zeros(1, 1), torch.zeros(1, 1, 2).long(), 0, (8, 8)), "size must be"),
    ((torch.zeros(1, 1), torch.zeros(1, 1, 2).long(), 9, (8, 8)), "size must be"),
    ((torch.zeros(1, 1), torch.zeros(1, 1, 2).long(), 2, None), "shape must be"),
])  # fmt: skip
def test_spread_answers_bad_input_in_one_sentence(arguments, word):
    values, corners, size, shape = arguments
    with pytest.raises(ValueError, match=word):
        localisation.spread(values, corners, size=size, shape=shape)


def test_shares_on_the_object():
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1:3, 2:] = True  # 6 of 20 pixels
    assert localisation.on_object(torch.full((4, 5), 0.7), mask) == pytest.approx(0.3)
    assert localisation.on_object(mask.float(), mask) == 1 and localisation.on_object((~mask).float(), mask) == 0
    rise = torch.where(mask, 1.0, -50.0)  # a probability that rises off the object is no drop there
    assert localisation.on_object(rise, mask) == 1
    half = mask * 1.0
    half[0, 0] = 6.0
    assert localisation.on_object(torch.stack([half, mask * 2.0]), mask).tolist() == [0.5, 1.0]
    assert localisation.on_object(-mask.float(), mask).isnan()


def test_chance_is_that_of_the_other_masks():
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[2, 1, 1] = True
    assert localisation.chance(masks.float(), masks).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("call", [
    lambda: localisation.on_object(torch.zeros(3, 4), torch.zeros(4, 3, dtype=torch.bool)),
    lambda: localisation.on_object(torch.zeros(3, 4), torch.zeros(3, 4)),
    lambda: localisation.chance(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4, dtype=torch.bool)),
    lambda: localisation.chance(torch.zeros(3, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool)),
])  # fmt: skip
def test_shares_answer_bad_input_in_one_sentence(call):
    with pytest.raises(ValueError, match="mask"):
        call()


def test_rank_correlation_has_spearmans_values():
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert localisation.rank_correlation(one, one**3) == pytest.approx(1)
    assert localisation.rank_correlation(one, -one) == pytest.approx(-1)
    scipy_stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    tied, other = torch.tensor([0.0, 0, 0, 2, 2, 5, 1]), torch.tensor([3.0, 1, 1, 1, 9, 7, 2])
    assert localisation.rank_correlation(tied, other) == pytest.approx(scipy_stats.spearmanr(tied, other).statistic)
    with pytest.raises(ValueError, match="other"):
        localisation.rank_correlation(one, one[0])
    for pair in ((one, one * torch.nan), (one * torch.nan, one)):
        with pytest.raises(ValueError, match="one and other must be numbers everywhere"):
            localisation.rank_correlation(*pair)


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
                localisation.spread(before - values, maps.corners, size=6, shape=(18, 22)),
                atol=1e-5,
                rtol=1e-4,
            )
        assert found.largest[i] == pytest.approx(float((maps.before[0] - maps.probability).max()), abs=1e-6)
    with pytest.raises(ValueError, match="labels"):
        localisation.study(net, images, [1], size=6, stride=4, layer="2")
    for wrong in ([0.9, 1.7], "01", torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="label must be a class from 0 to 5"):
            localisation.study(net, images, wrong, size=6, stride=4, layer="2")


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
    with pytest.raises(ValueError, match="images and looks must be of the same images, two at least, got 1, 1"):
        localisation.stories(small, images[:1], looks[:1], size=6, stride=3, layer="2")
