"""What a projection says of its channel: closed forms, autograd, brute force."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import zflib
from zflib.studies import rectification


@pytest.fixture
def net():
    """Two layers without padding: 9x9 images, 7x7 maps of conv1, 5x5 maps of conv2."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
    return layers.requires_grad_(False).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_the_strongest_channels_at_the_middle(net, images):
    channels, position = rectification.strongest_channels(zflib.Deconvnet(net), images[0], "3", count=3)
    values = net(images[:1])[0, :, 2, 2]
    assert position == (2, 2) and channels.tolist() == values.argsort(descending=True)[:3].tolist()
    assert rectification.strongest_channels(zflib.Deconvnet(net), images[0], "3", count=1, position=(0, 4))[1] == (0, 4)


def test_gradients_at_one_position_are_autograds(net, images):
    gradient = zflib.Deconvnet(net, rule="gradient")
    channels, _ = rectification.strongest_channels(zflib.Deconvnet(net), images[0], "3", count=3)
    for channel, picture in zip(channels, rectification.same_position(gradient, images[0], "3", count=3)):
        leaf = images[:1].clone().requires_grad_()
        value = net(leaf)[0, channel, 2, 2]
        (expected,) = torch.autograd.grad(value, leaf, value.detach())
        assert torch.allclose(picture, expected[0], atol=1e-6)


def test_own_rises_most_is_a_closed_form():
    rises = torch.tensor([[3.0, 1, 2], [3, 1, 2], [2, 2, 2]])  # own: the largest, not the largest, only as large
    assert rectification._own_rises_most(rises).tolist() == [True, False, False]


def test_a_picture_that_all_channels_share_is_right_once():
    rises = torch.tensor([1.0, 5, 2]).expand(3, 3)  # the same picture three times
    assert rectification._own_rises_most(rises).sum() == 1


def test_filters_without_overlap_are_each_their_own(images):
    """Every picture is its filter, and filters that are orthogonal raise nothing but themselves."""
    conv = nn.Conv2d(3, 3, 3, bias=False).requires_grad_(False)
    conv.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) * torch.rand(3, 3))
    found = rectification.own_channel_rises(nn.Sequential(conv, nn.ReLU()), images.abs(), "1", count=3)
    assert list(found) == [*zflib.deconv.RULES, "noise"] and found["noise"].shape == (3, 3)
    assert all(found[rule].all() for rule in zflib.deconv.RULES)


@pytest.mark.parametrize("rule", zflib.deconv.RULES)
def test_the_control_is_what_a_loop_finds(net, images, rule):
    found = rectification.own_channel_rises(net, images, "3", count=4, share=0.1)[rule]
    for image, row in zip(images, found):
        before = net(image[None])[0, :, 2, 2]
        channels = before.argsort(descending=True)[:4]
        for i, channel in enumerate(channels):
            picture = zflib.Deconvnet(net, rule=rule).project(image[None], "3", int(channel), positions=(2, 2))[0]
            after = net((image + 0.1 * image.norm() * picture / picture.norm())[None])[0, :, 2, 2]
            assert bool(row[i]) == (int((after - before)[channels].argmax()) == i)


def test_noise_is_the_same_every_time_and_follows_the_seed(net, images):
    once, again, other = (
        rectification.own_channel_rises(net, images, "3", count=4, seed=seed)["noise"] for seed in (0, 0, 1)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_a_network_is_like_itself_and_unlike_its_negative(net, images):
    same = rectification.likeness_to_untrained(net, net, images, "3", count=2)
    assert all(torch.allclose(values, torch.ones(3, 2), atol=1e-5) for values in same.values())
    torch.manual_seed(5)
    other = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()).requires_grad_(False)
    found = rectification.likeness_to_untrained(net, other, images, "3", count=2)
    assert all(values.abs().max() < 0.999 for values in found.values())


def test_the_photograph_and_a_picture_are_compared_pixel_by_pixel(net, images):
    own = {nn.ReLU: lambda signal, before, after: signal.clamp(min=0)}
    deconvnets = {"own": zflib.Deconvnet(net, rules=own), "gradient": zflib.Deconvnet(net, rule="gradient")}
    found = rectification.likeness_to_photograph(deconvnets, images, "3", count=3)
    for name, rule in (("own", "deconvnet"), ("gradient", "gradient")):
        for image, row in zip(images, found[name]):
            pictures = rectification.same_position(zflib.Deconvnet(net, rule=rule), image, "3", count=3)
            expected = [float((p * image).sum() / (p.norm() * image.norm())) for p in pictures]
            assert row.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_spread_is_over_images():
    mean, error = rectification.mean_and_error(torch.tensor([[1, 1], [0, 0], [1, 0]]))
    assert mean == pytest.approx(0.5) and error == pytest.approx(0.5 / 3**0.5)


def test_a_bar_is_as_high_as_the_mean_and_has_a_dot_for_each_image():
    ax = plt.subplots()[1]
    rectification.bars({"one": torch.tensor([[1, 1], [0, 1.0]]), "two": torch.zeros(2, 2)}, ax, title="likeness")
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0]
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 0.5], [0, 0]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["one\n0.75 ± 0.25", "two\n0.00 ± 0.00"]
