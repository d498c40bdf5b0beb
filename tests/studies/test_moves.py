"""What notebook 10 measures, against brute force and closed forms; and that its drawings show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import show
from zflib.experiments.transforms import Move, moved
from zflib.studies import moves


class Rows(nn.Module):
    """Says the row of the only bright pixel (0 to 7), or 8 when there is none."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images[:, 0].amax(dim=2)  # (N,8)
        return torch.cat([rows, 0.5 - rows.sum(dim=1, keepdim=True)], dim=1) * 9


def bright(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(3, 8, 8)
    image[:, row, column] = 1
    return image


def test_all_shifts_come_once_the_shortest_first():
    shifts = moves.shifts_within(2)
    assert len({tuple(shift) for shift in shifts.tolist()}) == len(shifts) == 25
    assert shifts[0].tolist() == [0, 0] and (shifts.float().norm(dim=1).diff() >= 0).all()


def test_the_shortest_fooling_shift_is_what_brute_force_finds():
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).requires_grad_(False)
    found = []
    for _ in range(12):
        image = torch.randn(3, 8, 8)
        label = int(net(image[None]).argmax())
        lengths = [
            float(down**2 + right**2)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if int(net(moved(image[None], Move(down, right))).argmax()) != label
        ]
        found.append(shift := moves.shortest_fooling_shift(net, image, label, 3))
        assert (shift is None) == (not lengths)
        assert shift is None or shift[0] ** 2 + shift[1] ** 2 == min(lengths)
    assert len(set(found)) > 4


def test_a_shift_out_of_reach_is_none_and_bars_move_nothing():
    assert moves.shortest_fooling_shift(Rows(), bright(4, 4), 4, 3) in {(-1, 0), (1, 0)}
    assert moves.shortest_fooling_shift(Rows(), bright(1, 4), 1, 1, moves.barred) is None  # row 1 is not covered yet
    assert moves.shortest_fooling_shift(Rows(), bright(1, 4), 1, 2, moves.barred) == (2, 0)
    barred = moves.barred(torch.ones(3, 8, 8), 2, -1)[0, 0]
    assert not barred[:2].any() and not barred[:, -1].any() and bool((barred[2:, :-1] == 1).all())


def test_explained_is_one_for_its_own_shape_and_numpys_r2_otherwise():
    pixels = torch.arange(16.0)
    curves = torch.stack([3 * pixels, 2 * pixels.sqrt(), pixels**2 + 1], dim=1)
    assert moves.explained(curves, pixels)[0] == pytest.approx(1)
    assert moves.explained(curves, pixels.sqrt())[1] == pytest.approx(1)
    x, y = pixels.numpy().astype(float), curves[:, 2].numpy().astype(float)
    _, rest, *_ = np.linalg.lstsq(x[:, None], y, rcond=None)
    assert float(moves.explained(curves, pixels)[2]) == pytest.approx(1 - rest[0] / ((y - y.mean()) ** 2).sum())


def test_answers_kept_counts_those_that_were_right_and_sure():
    images = torch.stack([bright(2, 3), bright(7, 3), bright(5, 3), 0.01 * bright(4, 4)])
    labels = torch.tensor([2, 7, 6, 4])  # the third is wrong, the fourth is not sure
    share, error, count = moves.answers_kept(Rows(), images, labels, Move(right=1), batch=3)
    assert (share, error, count) == (1, 0, 2)
    assert moves.answers_kept(Rows(), images, labels, Move(down=1))[0] == 0


def test_a_pupil_answers_its_five_kinds():
    pupil = moves.taught(0.12, 0, count=50, epochs=1)
    exam = moves.examination(3, 10)
    assert not pupil.training and pupil(pupil.normalise(exam.pixels)).shape == (10, 5)
    assert (exam.pose[:, 0] == 3).all() and 0 <= moves.accuracy(pupil, exam) <= 100


def test_the_strip_is_the_scale_of_the_curves():
    torch.manual_seed(0)
    net = zflib.zfnet56().requires_grad_(False).eval()
    found = zflib.invariance(net, torch.randn(2, 3, 56, 56), 0, transform="translate", amounts=(-4, 0, 4))
    _, axes = plt.subplots(3, 1)
    tiles = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 200)]
    moves.draw_figure5(axes, found, ["one", "two"], tiles, (-4, 0, 4), "pixels down")
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[2].get_xlim() == (-6, 6)
    middles = [sum(image.get_extent()[:2]) / 2 for image in axes[2].images]
    assert middles == [-4, 0, 4]
    words = {text.get_text() for ax in axes for text in ax.texts}
    assert {"one", "two", "conv1, mean of 2", "fc7, mean of 2"} <= words
    means = [line for line in axes[0].lines if line.get_linewidth() > 3]
    assert [float(line.get_ydata()[-1]) for line in means] == [
        pytest.approx(float(found.compared[layer][-1].mean())) for layer in ("conv1", "fc7")
    ]


def test_names_of_lines_do_not_cover_each_other():
    _, ax = plt.subplots()
    moves.name_lines(ax, [(0.5, "a", "black"), (0.5, "b", "black"), (0.51, "c", "black")])
    heights = sorted(text.get_position()[1] for text in ax.texts)
    assert min(np.diff(heights)) >= 0.1


def test_a_thin_line_leads_from_where_a_line_ends_to_its_name():
    _, ax = plt.subplots()
    moves.name_lines(ax, [(0.2, "a", "black"), (0.2, "b", "red")], at=0.9)
    for line, text in zip(ax.lines, ax.texts):
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (0.9, 0.2)
        assert text.get_color() == show.ink(line.get_color())
        assert line.get_ydata()[1] == text.get_position()[1] and line.get_xdata()[1] < text.get_position()[0]
