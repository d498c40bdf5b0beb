"""Matrices side by side: one size of cell for all of them."""

from __future__ import annotations

import itertools

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from zflib import show


def extents(ax) -> list[tuple[float, float]]:
    """(cells wide, cells high) over the data units that each picture takes: 1 if a cell is a unit."""
    found = []
    for image in ax.images:
        left, right, bottom, top = image.get_extent()
        height, width = image.get_array().shape[:2]
        found.append(((right - left) / width, (bottom - top) / height))
    return found


def test_all_cells_have_one_size_and_matrices_do_not_overlap():
    ax = show.matrices([torch.randn(3, 3), np.zeros((8, 9, 3), np.uint8), torch.randn(6, 7)])
    assert extents(ax) == [(1, 1)] * 3 and ax.get_aspect() == 1
    edges = [image.get_extent()[:2] for image in ax.images]
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(edges))
    middles = [sum(image.get_extent()[2:]) / 2 for image in ax.images]
    assert middles == [4, 4, 4]


def test_small_ones_have_their_numbers_large_ones_do_not():
    ax = show.matrices([torch.tensor([[1.0, -2.5]]), torch.tensor([[0.25]])], titles=["a", "b"], signs=["on"])
    assert [text.get_text() for text in ax.texts] == ["1", "-2.5", "a", "on", "0.25", "b"]
    assert not show.matrices([torch.zeros(20, 20), torch.zeros(9, 9)]).texts


def test_blank_cells_have_no_number():
    ax = show.matrices([torch.tensor([[0.0, 2], [0, 0]])], blank=0)
    assert [text.get_text() for text in ax.texts] == ["2"]


def test_numbers_fit_into_their_cells():
    ax = show.matrices([torch.full((3, 3), -20.75), torch.full((8, 18), 0.25)])
    ax.figure.draw_without_rendering()
    cell = ax.get_window_extent().width / np.ptp(ax.get_xlim())
    assert all(text.get_window_extent().width < cell for text in ax.texts)
    assert len({text.get_fontsize() for text in ax.texts}) == 1


def test_frames_mark_cells_of_their_matrix():
    ax = show.matrices([torch.ones(3, 3), torch.ones(5, 5)], frames={1: (1, 2, 4, 5)})
    (frame,) = ax.patches
    left, _, _, top = ax.images[1].get_extent()
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (left + 2, top + 1, 3, 3)


def test_each_matrix_has_its_own_contrast_unless_told_otherwise():
    pair = [torch.tensor([[1.0, -4.0]]), torch.tensor([[10.0]])]
    assert [image.get_clim() for image in show.matrices(pair).images] == [(-4, 4), (-10, 10)]
    assert [image.get_clim() for image in show.matrices(pair, full=2, colours="Oranges").images] == [(0, 2)] * 2


def test_it_draws_on_the_axes_it_is_given_and_refuses_a_row_of_numbers():
    ax = plt.subplots()[1]
    assert show.matrices([torch.ones(2, 2)], ax) is ax
    with pytest.raises(ValueError, match=r"values must be matrices \(h,w\) or pictures, got shape \(3,\)"):
        show.matrices([torch.ones(3)])
