"""What notebook 08 draws."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import zflib
from zflib.studies import architecture
from zflib.studies import architecture_drawn as drawn


def test_the_bar_moves_by_a_pixel_and_keeps_off_the_border():
    bars = drawn.moving_bar(width=2)
    assert bars.shape == (12, 3, 27, 46)
    for shift in range(11):
        assert torch.equal(bars[shift].roll(1, dims=-1), bars[shift + 1])
    assert bars[..., :11].abs().sum() == 0 and bars[..., -11:].abs().sum() == 0


def test_what_a_filter_sees_at_a_stride_is_every_so_manyth_position():
    conv = nn.Conv2d(3, 4, 7).requires_grad_(False)
    bars = drawn.moving_bar()
    dense = drawn.seen(conv, 2, bars, 1)
    torch.testing.assert_close(dense, conv(bars)[:, 2].relu())
    torch.testing.assert_close(drawn.seen(conv, 2, bars, 4), dense[:, ::4, ::4])


def test_on_a_bar_without_a_border_nothing_flickers_at_stride_1():
    net = zflib.load("alexnet56")
    bars = drawn.moving_bar()
    flickers = []
    for stride in (1, 2, 4):
        energies = drawn.seen(net.conv1, 47, bars, stride).square().sum(dim=(1, 2))
        flickers.append(float(architecture.flicker(energies[:, None, None])))
    assert flickers[0] < 1e-3 < flickers[1] < 0.2 < 1 < flickers[2]  # the opening picture


def test_the_frames_are_as_wide_as_a_page_and_differ():
    before = plt.get_fignums()
    frames = drawn.moving_frames(nn.Conv2d(3, 2, 11), 1)
    assert len(frames) == 12 and all(frame.shape == frames[0].shape for frame in frames)
    assert frames[0].shape[1] == 1000 and not np.array_equal(frames[0], frames[1])
    assert plt.get_fignums() == before


def test_the_numbers_written_are_the_means():
    scores = {name: {s: torch.full((64,), 0.05 * s) for s in (1, 4)} for name in drawn.COLOURS}
    texts = [text.get_text() for text in drawn.draw_strides(plt.subplots()[1], scores).texts]
    assert sum(text.startswith("0.050") for text in texts) == 2 and sum(text.startswith("0.200") for text in texts) == 2
    shares = torch.tensor([[0.3, 0.6, 0.1], [0.5, 0.48, 0.02]])
    texts = [text.get_text() for text in drawn.draw_shares(plt.subplots()[1], [{"one": shares}]).texts]
    assert {"0.40 ± 0.10", "0.54 ± 0.06", "0.06 ± 0.04", "low", "middle", "high"} == set(texts)


def test_energies_as_bars_reach_as_high_as_they_are():
    pixels = drawn.energy_bars(torch.tensor([1.0, 3, 0, 0]), 1, 80)  # over their mean: 1 and 3, of 4
    black = (pixels == 0).all(axis=2)
    assert black[:, :20].sum() == 0 and 58 <= black[:, 30].sum() <= 61


def test_the_view_of_a_filter_moves_with_the_photograph():
    net, square = zflib.alexnet56().requires_grad_(False).eval(), torch.randint(0, 256, (3, 64, 64))
    views = [drawn.shifted_view(net, 3, 4, shift, square) for shift in (0, 7)]
    assert views[0].shape == views[1].shape and not np.array_equal(*views)


def test_the_net_of_blocks_is_cropped_to_what_the_projection_covers():
    whole = torch.zeros(2, 3, 56, 56)
    whole[:, :, 10:30, 20:50] = torch.randn(2, 3, 20, 30)
    sheet = drawn.net_of_blocks(whole, whole / 2, [0, 1], ["a", "b", "c", "d"])
    assert sheet.shape[1] == 2000 and sheet.dtype == np.uint8


def test_profiles_are_named_on_their_lines():
    curves = {name: torch.rand(28) + 0.1 for name in ("as trained", "without", "grid")}
    assert [text.get_text() for text in drawn.draw_profiles(plt.subplots()[1], curves).texts] == list(curves)
