"""Pictures on axes: what is drawn where."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from zflib import show


def grey(height: int, width: int, value: int = 7) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_axes_pixels_draw_the_figure_and_close_it():
    figure, ax = plt.subplots(figsize=(2, 1), dpi=50)
    ax.set_axis_off()
    figure.set_facecolor("red")
    pixels = show.axes_pixels(figure)
    assert pixels.shape == (50, 100, 3) and pixels.dtype == np.uint8 and (pixels[0, 0] == (255, 0, 0)).all()
    assert not plt.get_fignums()
    assert show.axes_pixels(plt.subplots(figsize=(2, 1), dpi=50)[1]).shape == (50, 100, 3)


@pytest.mark.parametrize("draw", [
    lambda ax: show.photo(grey(8, 8), ax, title="t"),
    lambda ax: show.projection(torch.randn(3, 8, 8), ax, title="t"),
    lambda ax: show.filters(nn.Conv2d(3, 4, 5), ax, title="t"),
    lambda ax: show.numbers(torch.randn(2, 3), ax, title="t"),
], ids=["photo", "projection", "filters", "numbers"])  # fmt: skip
def test_functions_return_the_axes_they_were_given(draw):
    ax = plt.subplots()[1]
    assert draw(ax) is ax and ax.get_title() == "t"
    assert len(plt.get_fignums()) == 1
    assert draw(None) is not ax


def test_photo_outlines_a_box():
    ax = show.photo(grey(10, 10), box=(2, 3, 5, 9))
    (box,) = ax.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (2.5, 1.5, 6, 3)


def test_a_grid_labels_its_rows_and_columns():
    ax = show.grid([grey(6, 6, i) for i in range(6)], rows=["a", "b"], columns=[1, 2, 5], side=20)
    pixels = ax.images[0].get_array()
    assert pixels.shape == (42, 64, 3) and pixels[10, 32, 0] == 1 and pixels[32, 10, 0] == 3
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "5"]
    assert ax.get_yticks().tolist() == [10, 32]


def test_panels_take_arrays_and_projections():
    axes = show.panels([grey(4, 4), torch.zeros(3, 4, 4), grey(4, 4)], titles=["a", "b"], columns=2)
    assert axes.shape == (2, 2)
    assert (axes[0, 1].images[0].get_array() == show.GREY).all() and axes[0, 0].get_title() == "a"
    assert not axes[1, 1].images


def test_numbers_writes_each_value():
    ax = show.numbers(torch.tensor([[1.0, -2.5], [0.0, 4.0]]))
    assert [text.get_text() for text in ax.texts] == ["1", "-2.5", "0", "4"]
    assert ax.images[0].get_clim() == (-4, 4)
    assert not any(spine.get_visible() for spine in ax.spines.values())


def test_numbers_of_one_sign_use_the_whole_of_their_colours():
    ax = show.numbers(torch.tensor([[1.0, 4.0]]), colours="Oranges")
    assert ax.images[0].get_clim() == (0, 4)


@pytest.mark.parametrize("columns", [3, 16])
def test_numbers_fit_into_their_squares(columns):
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained")
    ax = show.numbers(torch.full((2, columns), -20.75), axes[1])
    figure.draw_without_rendering()
    cell = ax.get_window_extent().width / columns
    assert all(text.get_window_extent().width < cell for text in ax.texts)
    assert {text.get_fontsize() for text in ax.texts} == {10} or columns > 3


SHEETS = [(2, 3, 3), (20, 20, 1), (1, 24, 3)]  # rows, columns, pictures


@pytest.mark.parametrize("rows, columns, pictures", SHEETS)
def test_difference_png_draws_the_target_alone_or_all_three(rows, columns, pictures, monkeypatch):
    figures, titles, close = [], [], plt.close
    monkeypatch.setattr(plt, "close", figures.append)
    target = np.ones((rows, columns))
    content = show.difference_png(None if pictures == 1 else target * 2, target)
    assert content.startswith(b"\x89PNG")
    for ax in figures[0].axes:
        titles.append(ax.get_title())
        assert not any(spine.get_visible() for spine in ax.spines.values())
        assert len(ax.texts) == (rows * columns if rows * columns <= 64 and columns <= 16 else 0)
    assert titles == (["target"] if pictures == 1 else ["yours", "target", "difference"])
    close(figures[0])


def test_filters_refuses_filters_that_are_no_pictures():
    with pytest.raises(ValueError, match="conv takes 8 channels"):
        show.filters(nn.Conv2d(8, 4, 3))
