"""Ascent ends where a closed form says: at a linear unit's filter, at a quadratic unit's first eigenvector."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zflib
from zflib.experiments.ascent import contrast


class Quadratic(nn.Module):
    """A unit x·A x of images (3,4,4), A with one large eigenvalue."""

    def __init__(self):
        super().__init__()
        first = torch.randn(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.first = nn.Parameter(first / first.norm())

    def forward(self, x):
        x = x.flatten(1)
        return ((x @ self.first) ** 2 + 0.1 * (x * x).sum(1))[:, None]


def conv_net(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 5, bias=bias), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3), nn.ReLU()
    ).double()


def picture(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fires(net, image, layer, channel, position):
    return float(zflib.Deconvnet(net).activations(image[None], layer)[0, channel][position])


def test_a_linear_unit_ends_at_its_filter():
    net = conv_net(bias=False)
    found = zflib.activation_maximisation(net, "0", 2, start=picture(3, 12, 12), position=(3, 4), norm=7.0, steps=200)
    weight = net[0].weight[2].detach()
    torch.testing.assert_close(found[:, 3:8, 4:9], 7 * weight / weight.norm(), rtol=1e-2, atol=1e-2)


def test_a_quadratic_unit_ends_at_its_first_eigenvector():
    net = nn.Sequential(Quadratic())
    found = zflib.activation_maximisation(net, "0", 0, start=picture(3, 4, 4), norm=2.0, steps=200)
    assert abs(float(found.flatten() @ net[0].first.detach())) == pytest.approx(2.0, abs=1e-3)


def test_pixels_that_the_unit_does_not_see_stay_as_they_were():
    start = picture(3, 20, 20)
    found = zflib.activation_maximisation(conv_net(), "3", 1, start=start, position=(0, 0), steps=5)
    seen = torch.zeros(20, 20, dtype=torch.bool)
    seen[:10, :10] = True
    assert torch.equal(found[:, ~seen], start[:, ~seen]) and not torch.equal(found[:, seen], start[:, seen])


def test_from_noise_it_fires_more_and_keeps_the_contrast():
    net = zflib.load("scenes56")
    found = zflib.activation_maximisation(net, "conv3", 5, steps=20)
    assert found.shape == (3, 56, 56) and not found.requires_grad
    seen = found[:, found.abs().sum(0) > 0].numel()
    assert float(found.norm()) <= contrast(net, 3 * 56 * 56) and float(found.norm()) > 0.8 * contrast(net, seen)
    noise = contrast(net, 3 * 56 * 56) * torch.nn.functional.normalize(picture(3, 56, 56).float(), dim=(0, 1, 2))
    assert fires(net, found, "conv3", 5, (3, 3)) > 3 * fires(net, noise, "conv3", 5, (3, 3))


def test_seed_decides():
    net = zflib.load("scenes56")
    one, same, other = (zflib.activation_maximisation(net, "conv2", 3, steps=4, jitter=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def roughness(image):
    """How much neighbouring pixels differ, for their size."""
    return float(image.diff(dim=1).norm() / image.norm())


@pytest.mark.parametrize("settings", [{"jitter": 3}, {"blur": 0.8}], ids=["jitter", "blur"])
def test_jitter_and_blur_keep_fine_noise_away(settings):
    net = zflib.load("scenes56")
    raw = zflib.activation_maximisation(net, "conv3", 7, steps=30)
    smooth = zflib.activation_maximisation(net, "conv3", 7, steps=30, **settings)
    assert roughness(smooth) < 0.95 * roughness(raw)


def test_a_unit_that_is_off_has_no_gradient():
    """Behind a pool its value is 0, and nothing tells which way is up; a ReLU is asked for what goes into it."""
    net = conv_net().append(nn.MaxPool2d(2))
    net[3].bias.data.fill_(-1e3)
    sentence = r"channel 1 of layer '5' is off on noise \(seed 3\), so that its gradient is 0; give start="
    with pytest.raises(ValueError, match=sentence):
        zflib.activation_maximisation(net, "5", 1, seed=3)
    with pytest.raises(ValueError, match="is off on this start"):
        zflib.activation_maximisation(net, "5", 1, start=picture(3, 20, 20))
    assert zflib.activation_maximisation(net, "4", 1, start=picture(3, 20, 20), steps=2).any()


def test_it_leaves_no_trace():
    net = conv_net().train()
    zflib.activation_maximisation(net, "4", 1, start=picture(3, 20, 20), steps=2, jitter=1)
    assert net.training and all(p.grad is None for p in net.parameters()) and not net[4]._forward_hooks


BAD = [
    ({"net": 3}, TypeError, "net must be a torch network"),
    ({"layer": "x"}, ValueError, "layer 'x' is not in this network"),
    ({"channel": 9}, ValueError, "channel must be one of layer '4', 0 to 3, got 9"),
    ({"position": (50, 0)}, ValueError, "position: the maps of layer '4' are"),
    ({"start": picture(2, 3, 20, 20)}, ValueError, r"start must be one preprocessed image \(3,H,W\), got \(2, 3, 20"),
    ({"start": 3}, ValueError, "start must be one preprocessed image"),
    ({"start": picture(3, 20, 20) * float("nan")}, ValueError, "start: images hold NaN"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ({"rate": 0}, ValueError, "rate must be a number above 0, got 0"),
    ({"jitter": -1}, ValueError, "jitter must be pixels, 0 or more, got -1"),
    ({"blur": -1}, ValueError, "blur must be a number, 0 or more, got -1"),
    ({"norm": float("nan")}, ValueError, "norm must be a number above 0, got nan"),
    ({"seed": "a"}, ValueError, "seed must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize("wrong, kind, sentence", BAD, ids=range(len(BAD)))
def test_bad_input(wrong, kind, sentence):
    given = {"net": conv_net(), "layer": "4", "channel": 1, "start": picture(3, 20, 20)} | wrong
    with pytest.raises(kind, match=sentence) as caught:
        zflib.activation_maximisation(**given)
    assert "\n" not in str(caught.value)


def test_contrast_of_a_scale_for_each_colour():
    net = zflib.models.with_preprocessing(conv_net(), resize=40, crop=32, std=(0.25, 0.2, 0.5))
    grey = sum((60 / (255 * std)) ** 2 for std in (0.25, 0.2, 0.5)) / 3
    assert contrast(net, 100) == pytest.approx(10 * grey**0.5)
    image = zflib.activation_maximisation(net, "3", 1, steps=8)
    assert image.shape == (3, 32, 32) and fires(net, image, "3", 1, (6, 6)) > 1
