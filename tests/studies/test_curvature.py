"""Walks around a unit, and maps under random weights: closed forms, captum, and what cannot resemble."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

import zflib
from zflib.experiments.one_unit import OneUnit
from zflib.show import axes_pixels
from zflib.studies import curvature as study


@pytest.fixture(scope="module")
def net():
    return zflib.load("scenes56").requires_grad_(False)


def pictures(count=2, seed=0):
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed))


def test_turning_keeps_the_length_and_the_angle():
    image, direction = pictures(2)
    moved = study.turned(image, direction, [0.0, 30.0, 90.0])
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), image.norm().expand(3))
    cosines = (moved.flatten(1) @ image.flatten()) / image.norm() ** 2
    torch.testing.assert_close(cosines, torch.tensor([1.0, 0.75**0.5, 0.0]), atol=1e-5, rtol=0)


def test_a_linear_unit_follows_its_quadratic_as_far_as_a_cosine_does():
    """At a linear unit's maximum the response is cos, the quadratic 1 - angle²/2; they part by a tenth at 73°."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, 3, bias=False).double()
    weight = conv.weight[1].detach()
    unit = OneUnit(nn.Sequential(conv), weight, "0", 1)
    direction = torch.randn(3, 3, 3, dtype=torch.float64)
    true, predicted = (line(unit, direction) for line in (study.response, study.quadratic))
    angles = torch.deg2rad(torch.tensor(study.ANGLES, dtype=torch.float64))
    torch.testing.assert_close(true / weight.norm() ** 2, angles.cos())
    torch.testing.assert_close(predicted / float(weight.norm() ** 2), 1 - angles**2 / 2)
    assert study.reach(true, predicted) == 60
    assert study.reach(true, predicted, share=0.01) == 42


def test_around_optima_and_what_is_made_of_it(net, tmp_path):
    found = {"conv1": study.around_optima(net, "conv1", [3, 5], steps=8)}
    one = found["conv1"][0]
    assert one["exact_zero"] and set(one["response"]) == set(study.KINDS)
    assert study.reaches(found, "random")["conv1"].shape == study.kept(found, "random")["conv1"].shape == (2,)
    assert 0 < float(study.kept(found, "random")["conv1"].min()) < 0.7


def test_the_shipped_numbers_are_of_the_shipped_network():
    with pytest.warns(UserWarning, match="another network"):
        study.load(zflib.load("alexnet56"))
    found = study.load(zflib.load("zfnet56"))
    assert all(len(units) == 6 for units in found.values())
    steep, random = (study.reaches(found, kind)["conv3"].mean() for kind in ("steepest", "random"))
    assert steep < 15 < 40 < random


def test_grad_cam_is_captums(net):
    images, labels = pictures(), torch.tensor([3, 7])
    theirs = LayerGradCam(net, net.relu5).attribute(images, labels, relu_attributions=True)[:, 0]
    torch.testing.assert_close(study.grad_cam(net, images, "conv5", labels), theirs.detach())


def test_randomised_from_the_top(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    names, changed = [], []
    for name, made in study.randomised_from_the_top(net):
        names.append(name)
        changed.append({layer for layer, value in made.state_dict().items() if not torch.equal(value, before[layer])})
    assert names == ["fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1"]
    assert changed[1] == {"fc8.weight", "fc8.bias", "fc7.weight", "fc7.bias"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_likeness():
    a = pictures(3).abs().amax(dim=1)
    same, blank = study.likeness(a, 2 * a), study.likeness(a, 0 * a)
    assert same["rank"].tolist() == pytest.approx([1] * 3) and same["SSIM"].tolist() == pytest.approx([1] * 3)
    assert not blank["rank"].any()


def test_cascade_and_its_figures(net):
    import matplotlib.pyplot as plt

    images, labels = pictures(), torch.tensor([3, 7])
    first, second = (study.cascade(net, images, labels, seed=seed) for seed in (0, 1))
    found = study.cascade(net, images, labels, draws=2)
    for method in study.METHODS:  # the mean over draws; the control needs no weights
        mean = (first["rank"][method]["fc8"] + second["rank"][method]["fc8"]) / 2
        assert torch.allclose(found["rank"][method]["fc8"], mean)
        assert torch.equal(found["SSIM"][method]["other image"], first["SSIM"][method]["other image"])
    assert list(found["rank"]["guided"])[-2:] == ["other image", "two random"]
    assert found["SSIM"]["Grad-CAM"]["fc8"].shape == (2,)
    ax = study.control_bars(found["rank"], study.cascade_lines(found["rank"], plt.subplots()[1]))
    rows = {kind: {"conv1": torch.rand(3), "conv2": torch.rand(3)} for kind in study.KINDS}
    for drawn in (ax, study.layer_lines(rows, plt.subplots()[1], ylabel="", title=""),
                  study.contours(lambda x: x.sum(), plt.subplots()[1])):  # fmt: skip
        assert axes_pixels(drawn).shape[2] == 3


def test_ignores():
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    weight = net[0].weight.clone()
    assert study.ignores(lambda net, image: image.sum(0), net, pictures()[0])
    assert not study.ignores(lambda net, image: net(image), net, pictures()[0])
    assert torch.equal(net[0].weight, weight)
