"""The numbers beside Figure 6: gratings, dead channels and stride, each with an answer known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import architecture


def grating(frequency: float, side: int, *, along: int = 1) -> torch.Tensor:
    """(side,side) cosine of `frequency` cycles per pixel along an axis."""
    wave = torch.cos(2 * np.pi * frequency * torch.arange(side).float())
    return wave.expand(side, side) if along else wave[:, None].expand(side, side)


@pytest.mark.parametrize("side", [7, 11])
@pytest.mark.parametrize(("frequency", "band"), [(0.0, 0), (1 / 6, 1), (0.5, 2)])
def test_a_gratings_energy_lies_in_its_band_whatever_the_filters_size(side, frequency, band):
    conv = nn.Conv2d(3, 2, side)
    with torch.no_grad():
        conv.weight[0] = torch.hann_window(side + 2, periodic=False)[1:-1].outer(
            torch.hann_window(side + 2, periodic=False)[1:-1]
        ) * grating(frequency, side)
        conv.weight[1] = 0
    shares = architecture.frequency_shares(conv)
    assert shares.shape == (2, 3) and int(shares[0].argmax()) == band and float(shares[0, band]) > 0.5
    assert float(shares[0].sum()) == pytest.approx(1, abs=1e-5) and float(shares[1].sum()) == 0


def test_white_noise_has_the_shares_of_the_bands_areas():
    conv = nn.Conv2d(3, 200, 7)
    torch.manual_seed(0)
    nn.init.normal_(conv.weight)
    low, middle, _ = architecture.frequency_shares(conv).mean(0).tolist()
    assert low == pytest.approx(np.pi / 64, abs=0.01)
    assert middle == pytest.approx(np.pi * (1 / 9 - 1 / 64), abs=0.01)


def one_layer(weight: torch.Tensor, stride: int) -> ZFNet:
    """A first layer of given filters on grey images of 64 pixels, cropped to 56."""
    channels, _, side, _ = weight.shape
    net = ZFNet(0, geometry=Geometry(64, 56, (Conv(channels, side, stride),), hidden=None)).eval()
    with torch.no_grad():
        net.conv1.weight.copy_(weight)
        net.conv1.bias.zero_()
        net.mean.fill_(127.5)
    return net


def picture(frequency: float) -> torch.Tensor:
    return (127.5 + 100 * grating(frequency, 64)).round().to(torch.uint8).expand(1, 3, 64, 64).contiguous()


def test_the_finest_grating_aliases_at_stride_two_and_a_coarse_one_does_not():
    """Sampled at every second pixel, +-+- is all + or all -: after the ReLU all or nothing."""
    point = torch.zeros(1, 3, 1, 1)
    point[:, 0] = 1
    fine, coarse = picture(0.5), picture(1 / 14)  # four whole periods in every crop of 56
    assert float(architecture.aliasing(one_layer(point, 2), fine, "conv1")) == pytest.approx(1, abs=0.05)
    assert float(architecture.aliasing(one_layer(point, 1), fine, "conv1")) < 0.05
    assert float(architecture.aliasing(one_layer(point, 2), coarse, "conv1")) < 0.05
    assert float(architecture.aliasing(architecture.dense(one_layer(point, 2)), fine, "conv1")) < 0.05


def test_energies_are_those_of_the_shifted_crops():
    net, pixels = zflib.zfnet56().eval(), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    energies = architecture.phase_energies(net, pixels, "conv2", shifts=(0, 3))
    assert energies.shape == (2, 2, 192)
    by_hand = zflib.Deconvnet(net).activations(net.normalise(pixels[..., 4:60, 3:59]), "conv2")
    torch.testing.assert_close(energies[1], by_hand.square().sum(dim=(2, 3)))
    spread = energies.numpy().std(axis=0)
    expected = np.sqrt((spread**2).mean(axis=0)) / np.maximum(energies.numpy().mean(axis=(0, 1)), 1e-12)
    np.testing.assert_allclose(
        architecture.aliasing(net, pixels, "conv2", shifts=(0, 3)), expected, rtol=1e-3, atol=1e-6
    )


def test_a_fully_connected_units_energy_is_its_square():
    net = ZFNet(2, geometry=Geometry(14, 12, (Conv(4, 3, pool=True),), hidden=(8,))).eval()
    pixels = torch.randint(0, 256, (2, 3, 14, 14), dtype=torch.uint8)
    units = zflib.Deconvnet(net).activations(net.normalise(pixels[..., 1:13, :12]), "fc2")  # (2,8)
    torch.testing.assert_close(architecture.phase_energies(net, pixels, "fc2", shifts=[0])[0], units.square())


def test_dense_keeps_the_filters_and_loses_the_stride():
    net, image = zflib.alexnet56().eval(), torch.randn(1, 3, 56, 56)
    control = architecture.dense(net)
    maps = [zflib.Deconvnet(n).activations(image, "conv1") for n in (net, control)]
    torch.testing.assert_close(maps[1][..., ::4, ::4][..., :14, :14], maps[0], rtol=1e-4, atol=1e-5)
    assert net.conv1.stride == (4, 4)


def test_channels_that_never_fire_are_dead():
    weight = torch.zeros(4, 3, 1, 1)
    weight[0], weight[1], weight[2, 0] = 1, -1e-4, 0.5
    net = one_layer(weight, 1)
    images = torch.rand(130, 3, 56, 56)
    assert architecture.dead_channels(net, images, "conv1").tolist() == [False, True, False, True]
    weak = one_layer(weight.abs(), 1)  # channel 1 now fires, at a ten-thousandth of the strongest
    assert architecture.dead_channels(weak, images, "conv1").tolist() == [False, True, False, True]
    assert architecture.dead_channels(weak, images, "conv1", share=0.0).tolist() == [False, False, False, True]


def test_dense_keeps_the_batch_normalisation():
    net, image = zflib.zfnet56(3, batch_norm=True).eval(), torch.randn(1, 3, 56, 56)
    torch.nn.init.uniform_(net.bn1.running_var, 0.5, 2)
    maps = [zflib.Deconvnet(n).activations(image, "conv1") for n in (net, architecture.dense(net))]
    torch.testing.assert_close(maps[1][..., ::2, ::2], maps[0], rtol=1e-4, atol=1e-5)


def test_bad_input_is_named():
    net, pixels = one_layer(torch.ones(2, 3, 5, 5), 1), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    wrong = [
        (lambda: architecture.aliasing(net, pixels, "conv1", shifts=range(10)), "do not fit this network"),
        (lambda: architecture.aliasing(net, pixels, "conv9"), "layer 'conv9'"),
        (lambda: architecture.phase_energies(net, pixels[..., :40, :], "conv1"), "do not fit this network"),
        (lambda: architecture.phase_energies(nn.Sequential(), pixels, "conv1"), "net must be a network of zflib"),
    ]  # fmt: skip
    for call, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
