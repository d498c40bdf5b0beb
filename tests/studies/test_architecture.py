"""The numbers beside Figure 6: gratings, dead channels and stride, each with an answer known beforehand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import deconv
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import architecture


def grating(frequency: float, side: int, *, along: int = 1) -> torch.Tensor:
    """(side,side) cosine of `frequency` cycles per pixel along an axis."""
    wave = torch.cos(2 * np.pi * frequency * torch.arange(side).float())
    return wave.expand(side, side) if along else wave[:, None].expand(side, side)


@pytest.mark.parametrize("side", [7, 11])
@pytest.mark.parametrize(("frequency", "band"), [(0.0, 0), (1 / 6, 1), (0.5, 2)])
def test_a_gratings_energy_lies_in_its_band_whatever_the_filters_size(side, frequency, band):
    window = torch.hann_window(side + 2, periodic=False)[1:-1]
    weight = torch.zeros(2, 3, side, side)
    weight[0] = window.outer(window) * grating(frequency, side)
    shares = architecture.frequency_shares(weight)
    assert shares.shape == (2, 3) and int(shares[0].argmax()) == band and float(shares[0, band]) > 0.5
    assert float(shares[0].sum()) == pytest.approx(1, abs=1e-5) and float(shares[1].sum()) == 0


def test_white_noise_has_the_shares_of_the_bands_areas():
    noise = torch.randn(200, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    low, middle, _ = architecture.frequency_shares(noise).mean(0).tolist()
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
    assert float(architecture.aliasing(architecture.at_stride(one_layer(point, 2), 1), fine, "conv1")) < 0.05


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


def test_at_stride_1_the_filters_are_the_same_and_nothing_is_skipped():
    net, image = zflib.alexnet56().eval(), torch.randn(1, 3, 56, 56)
    control = architecture.at_stride(net, 1)
    maps = [zflib.Deconvnet(n).activations(image, "conv1") for n in (net, control)]
    torch.testing.assert_close(maps[1][..., ::4, ::4][..., :14, :14], maps[0], rtol=1e-4, atol=1e-5)
    assert net.conv1.stride == (4, 4)
    same = zflib.Deconvnet(architecture.at_stride(net, 4)).activations(image, "conv1")
    torch.testing.assert_close(same, maps[0])


def test_a_band_share_is_the_direct_sum_over_waves():
    weight = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    size, low, high = 12, 0.2, 0.4
    inside, total = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            down, across = ((n if n < size / 2 else n - size) / size for n in (row, column))
            y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
            wave = torch.exp(-2j * torch.pi * (down * y + across * x).double())
            energy = (weight * wave).sum(dim=(2, 3)).abs().square().sum(dim=1)
            total += energy
            inside += energy * (low <= float(np.hypot(down, across)) < high)
    torch.testing.assert_close(architecture.band_share(weight, low, high, size), inside / total)


def test_the_same_pattern_at_another_width_is_another_frequency():
    """One broad wave across the filter: its place in the spectrum scales with the width."""

    def wave(side):
        window = torch.hann_window(side + 2, periodic=False)[1:-1]
        return (window.outer(window) * grating(2 / side, side)).expand(1, 3, side, side)

    for mode in ("bicubic", "bilinear"):
        narrow = architecture.resized(wave(11), 7, mode=mode)
        assert narrow.shape == (1, 3, 7, 7)
        found, expected = (architecture.frequency_shares(w)[0, 2] for w in (narrow, wave(7)))
        assert float(found) == pytest.approx(float(expected), abs=0.1)
        assert float(architecture.frequency_shares(wave(11))[0, 2]) < 0.05 < float(found)


def test_lattices_are_the_filters_of_fine_waves():
    weight = torch.stack([grating(f, 11).expand(3, 11, 11) for f in (0.05, 0.45, 0.2, 0.4)])
    assert architecture.lattices(weight).tolist() == [1, 3]


def test_the_profile_of_a_grating_is_a_line_and_that_of_noise_is_flat():
    curve = architecture.profile(grating(14 / 56, 56).expand(4, 3, 56, 56))
    assert float(curve[14]) == pytest.approx(0.25, abs=0.01)  # across or down, with either sign: a quarter each
    noise = architecture.profile(torch.randn(50, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(noise, 1 / 56, rtol=0.1)
    assert curve.shape == (28,) and architecture.hump(noise) == pytest.approx(1, abs=0.1)


def test_stamps_on_a_grid_of_four_have_their_line_at_four_pixels():
    grid = torch.zeros(1, 3, 56, 56)
    grid[..., ::4, ::4] = 1
    curve = architecture.profile(grid)
    assert float(curve[14]) > 0.1 and float(curve[18:21].sum()) < 1e-6


def test_filters_on_a_jittered_grid_are_the_same_stamps_elsewhere():
    conv = nn.Conv2d(3, 5, 11, stride=4, padding=4, bias=False).requires_grad_(False)
    arriving = torch.rand(2, 5, 14, 14)
    kept = arriving.clone()
    kept[:, [0, 2, 4]] = 0
    expected = deconv.transposed_filter(kept, conv, size=(56, 56))
    torch.testing.assert_close(architecture.jittered(arriving, conv, [1, 3], size=56, reach=0), expected)
    needle = torch.zeros(1, 5, 14, 14)
    needle[0, 2, 5, 6] = 1
    stamp = architecture.jittered(needle, conv, [2], size=56, reach=0)
    places = set()
    for seed in range(30):
        moved = architecture.jittered(needle, conv, [2], size=56, reach=3, seed=seed)
        down, right = (int(m) for m in moved[0, 0].nonzero().amin(0) - stamp[0, 0].nonzero().amin(0))
        torch.testing.assert_close(moved, stamp.roll((down, right), dims=(2, 3)))
        places |= {("down", down), ("right", right)}
    assert places == {(way, move) for way in ("down", "right") for move in range(4)}


def test_a_matched_draw_contributes_as_much():
    conv, arriving = nn.Conv2d(3, 12, 5, stride=2, padding=2, bias=False).requires_grad_(False), torch.rand(3, 12, 8, 8)
    shares = architecture.contributions(arriving, conv, size=16)
    whole = architecture.jittered(arriving, conv, range(12), size=16, reach=0)
    alone = architecture.jittered(arriving, conv, [7], size=16, reach=0)
    expected = (alone.square().sum(dim=(1, 2, 3)) / whole.square().sum(dim=(1, 2, 3))).mean()
    assert float(shares[7]) == pytest.approx(float(expected), rel=1e-4)
    draws = architecture.matched(shares, torch.tensor([3, 8]), count=4, near=0.3)
    assert len(draws) == 4 and not {3, 8} & {one for draw in draws for one in draw}
    for draw in draws:
        assert len(set(draw)) == 2 and float(shares[draw].sum() / shares[[3, 8]].sum()) == pytest.approx(1, abs=0.3)
    with pytest.raises(ValueError, match="what others can match: of 100000 draws 0 did"):
        architecture.matched(torch.tensor([9.0, 1, 1]), [0], count=1)


def test_multiply_adds_are_positions_times_weights():
    net = zflib.alexnet56().eval()
    sides = (14, 7, 7, 7, 7)
    weights = (64 * 3 * 121, 192 * 64 * 25, 256 * 192 * 9, 256 * 256 * 9, 192 * 256 * 9)
    assert architecture.multiply_adds(net) == sum(side**2 * count for side, count in zip(sides, weights))


# --- does it pay? ----------------------------------------------------------------------------------------------------


def trained(coarse, fine):
    top1 = {"alexnet56": coarse, "zfnet56": fine}
    return architecture.Trainings("a budget", top1, top1)


def test_one_training_each_concludes_nothing():
    words = trained([61.4], [55.5]).conclusion()
    assert "5.9 points" in words and "is not known" in words and "better" not in words


def test_three_seeds_far_apart_are_a_difference_and_close_ones_may_be_luck():
    clear, close = trained([65.0, 65.5, 64.5], [60.0, 60.5, 59.5]), trained([65.0, 63.0, 64.0], [64.5, 62.0, 63.8])
    assert "zfnet56 is better at this budget" in clear.conclusion() and "stays open" in clear.conclusion()
    assert "in 10% of all ways, the fewest that so few" in clear.conclusion()
    assert "may be luck" in close.conclusion() and "the fewest" not in close.conclusion()
    assert "alexnet56 is better" in trained([60.0, 60.5, 59.5], [65.0, 65.5, 64.5]).conclusion()
    assert clear.error() == pytest.approx((0.5**2 / 3 * 2) ** 0.5)


def test_the_permutation_test_is_scipys():
    from scipy.stats import permutation_test

    coarse, fine = [61.0, 60.2, 62.5, 61.7], [60.1, 59.0, 61.2]
    found = permutation_test((coarse, fine), lambda a, b: abs(np.mean(a) - np.mean(b)), alternative="greater")
    assert trained(coarse, fine).separation() == pytest.approx(found.pvalue)


def test_trainings_are_read_from_whatever_is_there(tmp_path):
    path = tmp_path / "ablation.json"
    assert len(architecture.trainings(path)) == 1
    shipped = architecture.trainings(path)[0]
    assert shipped.top1["zfnet56"] == [pytest.approx(100 - zflib.load("zfnet56").card["accuracy"]["ten-crop"]["top1"])]
    errors = [("full", 60.0, 33.0), ("full", 61.0, 34.0), ("fc halved", 50.0, 20.0), ("alexnet", 65.0, 38.0)]
    rows = [{"budget": "short", "variant": name, "validation": {"top1": top1, "top5": top5}}
            for name, top1, top5 in errors]  # fmt: skip
    long = rows[0] | {"budget": "long"}
    content = {"budgets": {"short": {"epochs": 4}}, "rows": [long, *rows]}
    path.write_text(json.dumps(content | {"rows": rows[:-1]}))
    assert len(architecture.trainings(path)) == 1  # one twin alone is no comparison
    path.write_text(json.dumps(content))
    found = architecture.trainings(path)[1]
    assert "4 epochs" in found.budget and found.top1 == {"alexnet56": [65.0], "zfnet56": [60.0, 61.0]}
    assert found.top5["alexnet56"] == [38.0]


def test_channels_that_never_fire_are_dead():
    weight = torch.zeros(4, 3, 1, 1)
    weight[0], weight[1], weight[2, 0] = 1, -1e-4, 0.5
    net = one_layer(weight, 1)
    images = torch.rand(130, 3, 56, 56)
    assert architecture.dead_channels(net, images, "conv1").tolist() == [False, True, False, True]
    weak = one_layer(weight.abs(), 1)  # channel 1 now fires, at a ten-thousandth of the strongest
    assert architecture.dead_channels(weak, images, "conv1").tolist() == [False, True, False, True]
    assert architecture.dead_channels(weak, images, "conv1", share=0.0).tolist() == [False, False, False, True]


def test_at_another_stride_the_batch_normalisation_stays():
    net, image = zflib.zfnet56(3, batch_norm=True).eval(), torch.randn(1, 3, 56, 56)
    torch.nn.init.uniform_(net.bn1.running_var, 0.5, 2)
    maps = [zflib.Deconvnet(n).activations(image, "conv1") for n in (net, architecture.at_stride(net, 1))]
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
