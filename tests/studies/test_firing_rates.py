"""Firing thresholds, rates and scores against sorting, counting and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zflib.experiments.transforms import Move, moved
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import firing_rates

TINY = Geometry(14, 12, (Conv(4, 3, padding=1, pool=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    return ZFNet(7, geometry=TINY).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(90, 3, 12, 12, generator=torch.Generator().manual_seed(6))


def test_a_threshold_lets_that_share_fire():
    values = torch.rand(200, 5, generator=torch.Generator().manual_seed(0))
    for rate, count in ((0.01, 2), (0.05, 10), (0.5, 100)):
        limit = firing_rates.thresholds(values, rate)
        assert (values > limit).sum(dim=0).tolist() == [count] * 5
        for unit in range(5):
            assert float(limit[unit]) == sorted(values[:, unit].tolist(), reverse=True)[count]
        assert not firing_rates.silent(values, limit, rate).any()


def test_silent_units_have_no_threshold_and_ties_fire_less():
    values = torch.zeros(100, 5)
    values[:1, 1] = 3.0  # fires on 1 %: exactly the rate
    values[:2, 2] = torch.tensor([2.0, 1.0])
    values[:, 3] = 7.0  # always the same
    values[:4, 4], values[4:, 4] = 5.0, torch.rand(96)  # four share the largest value
    limit = firing_rates.thresholds(values, 0.01)
    assert firing_rates.silent(values, limit, 0.01).tolist() == [True, False, False, True, True]
    limit = firing_rates.thresholds(values, 0.03)
    assert firing_rates.silent(values, limit, 0.03).tolist() == [True, True, True, True, True]
    tied = torch.cat([torch.full((2, 1), 3.0), torch.full((4, 1), 2.0), torch.rand(94, 1)])
    limit = firing_rates.thresholds(tied, 0.04)
    assert float(limit) == 2 and int((tied > limit).sum()) == 2 and not firing_rates.silent(tied, limit, 0.04)


def test_the_score_in_closed_form():
    values = torch.arange(100.0)[:, None]  # the last ten fire at a rate of 0.1
    after = torch.stack([values, values - 5, 0 * values])  # all ten, five, none of them fire still
    after[2, :50] = 1000  # those that did not fire before do not count
    limit = firing_rates.thresholds(values, 0.1)
    torch.testing.assert_close(firing_rates.score(values, after, limit), torch.tensor([(1 + 0.5 + 0) / 3 / 0.1]))
    always = torch.rand(100, 1) + 1
    torch.testing.assert_close(firing_rates.score(always, always[None].flip(1), torch.zeros(1)), torch.ones(1))


@pytest.mark.parametrize("where", ["maximum", "centre"])
@torch.no_grad()
def test_is_what_counting_gives(net, images, where):
    amounts = (0, 2, -5)
    layers = ("conv1", "conv2", "fc3")
    settings = {"transform": "translate", "amounts": amounts, "layers": layers, "rate": 0.05}
    found = firing_rates.unit_invariance(net, images, where=where, **settings)

    def units(x):
        out = {}
        for name, module in net.named_children():
            x = module(x)
            if name in ("relu1", "relu2"):
                side = x.shape[-1] // 2
                out[name] = x.amax(dim=(2, 3)) if where == "maximum" else x[:, :, side, side]
            elif name == "relu3":
                out[name] = x
        return out

    before, after = units(images), [units(moved(images, Move(a))) for a in amounts]
    for layer, name in zip(layers, ("relu1", "relu2", "relu3")):
        limit = firing_rates.thresholds(before[name], 0.05)
        fires, good = before[name] > limit, ~found[layer].silent
        assert torch.equal(found[layer].silent, firing_rates.silent(before[name], limit, 0.05))
        torch.testing.assert_close(found[layer].threshold[good], limit[good])
        torch.testing.assert_close(found[layer].overall, fires.float().mean(0))
        for a in range(3):
            for unit in good.nonzero().flatten().tolist():
                still = [bool(after[a][name][i, unit] > limit[unit]) for i in range(90) if fires[i, unit]]
                assert float(found[layer].local[a, unit]) == pytest.approx(sum(still) / len(still), abs=0.26)
        expected = firing_rates.score(before[name], torch.stack([a[name] for a in after]), limit)
        assert float((found[layer].score[good] - expected[good]).abs().max()) < 2.5  # a tie in the last bits at most
        assert found[layer].score[found[layer].silent].isnan().all() and found[layer].threshold[~good].isnan().all()
    assert found["conv1"].silent.sum() < 4


def test_no_move_leaves_everyone_firing(net, images):
    found = firing_rates.unit_invariance(net, images, transform="rotate", amounts=(0, 360), layers="conv2", rate=0.1)[
        "conv2"
    ]
    good = ~found.silent
    assert bool((found.local[:, good] == 1).all())
    torch.testing.assert_close(found.score[good], 1 / found.overall[good])


def test_a_maximum_over_the_map_is_invariant_to_shifts_that_stay_inside():
    """A 1x1 unit that looks for one bright pixel; the pixel stays in the picture, or leaves it."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    nn.init.ones_(net[0].weight)
    images = torch.zeros(40, 3, 12, 12)
    for i in range(8):
        images[i, :, 5, 5] = 1 + i
        images[8 + i, :, 6, 6] = 1 + i
    settings = {"transform": "translate", "amounts": (0, 3, 7), "layers": "1", "rate": 0.2}
    top = firing_rates.unit_invariance(net, images, where="maximum", **settings)["1"]
    # 5 + 7 is outside, and so is 6 + 7
    assert top.local[:, 0].tolist() == [1.0, 1.0, 0.0]
    centre = firing_rates.unit_invariance(net, images, where="centre", **settings)["1"]
    assert centre.local[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_the_layers_score_is_the_mean_of_its_best_fifth():
    local = torch.tensor([[1.0, 0.5, 0.2, 0.1, 0.0, float("nan")]])
    quiet = torch.tensor([False] * 5 + [True])
    found = firing_rates.FiringRates((1.0,), torch.zeros(6), quiet, torch.full((6,), 0.01), local, local)
    assert found.best() == pytest.approx(100) and found.best(0.4) == pytest.approx(75)
    assert found.best(1) == pytest.approx(36)


@pytest.mark.parametrize("changes, message", [
    ({"rate": 1}, "rate must let a unit fire on 1 to 89 of 90 images, got 1"), ({"rate": 0.001}, "rate must .* 0.001"),
    ({"where": "mean"}, "where must be one of"),
])  # fmt: skip
def test_bad_input(net, images, changes, message):
    settings = {"transform": "translate", "amounts": (1,), "layers": "conv1", "rate": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        firing_rates.unit_invariance(net, images, **settings)


def test_silent_units_have_a_local_rate_above_their_own_floor():
    """A unit that fires on one bright pixel of 3 of 40 images cannot reach a rate of 0.2; two of them stay inside."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    nn.init.ones_(net[0].weight)
    images = torch.zeros(40, 3, 12, 12)
    for i, row in enumerate((2, 3, 10)):
        images[i, :, row, 5] = 1
    settings = {"transform": "translate", "amounts": (0, 3), "layers": "1", "rate": 0.2}
    found = firing_rates.unit_invariance(net, images, **settings)["1"]
    assert found.silent.tolist() == [True] and bool(found.local.isnan().all())
    torch.testing.assert_close(found.local_of_all[:, 0], torch.tensor([1.0, 2 / 3]))


def test_a_dead_layer_is_silent_and_has_no_score(images):
    dead = ZFNet(7, geometry=TINY).eval()
    nn.init.constant_(dead.conv2.bias, -99.0)
    settings = {"transform": "translate", "layers": ("conv2",), "rate": 0.1}
    found = firing_rates.unit_invariance(dead, images, amounts=(a for a in (0, 2)), **settings)["conv2"]
    assert bool(found.silent.all()) and found.amounts == (0, 2) and found.local.shape == (2, 6)
    assert not found.overall.any() and bool(found.local.isnan().all()) and math.isnan(found.best())
