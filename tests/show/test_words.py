"""Figures in words, and where a notebook stores them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from zflib import show
from zflib.show import words


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_pictures_are_counted_and_named():
    axes = show.panels([np.zeros((4, 4, 3), np.uint8)] * 3, titles=["input", "conv1", "conv2"])
    assert show.describe(axes[0, 0]) == "3 pictures: input; conv1; conv2"


def test_a_chart_says_its_axes_its_named_curves_and_what_is_written_in_it():
    figure, (one, other) = plt.subplots(1, 2)
    figure.suptitle("Figure 5")
    one.plot([0, 5, 10], [0, 9, 4.5], label="conv1")
    one.plot([0, 5, 10], [0, 0, 0])
    one.set(xlabel="pixels\nmoved", ylabel="distance")
    one.text(5, 1, "fc7")
    one.legend()
    other.bar(["cat", "dog"], [0.25, 1])
    figure.canvas.draw()
    assert show.describe(figure) == (
        "Figure 5. 2 charts: across: pixels moved, up: distance, conv1 from 0 to 4.5, fc7; "
        "across: (cat, dog), bars of 0.25, 1"
    )


def test_bars_without_axes_are_boxes_of_a_drawing():
    figure, ax = plt.subplots()
    ax.bar(0, 0.5)
    ax.text(0, 0.2, "conv1")
    ax.set_axis_off()
    assert show.describe(figure) == "1 chart: conv1"


def test_numbers_in_squares_are_read_row_by_row():
    pooled = torch.tensor([[1.0, -2], [0, 0.5]])
    assert show.describe(show.numbers(pooled, title="pooled")) == "1 picture: pooled, rows 1 -2; 0 0.5"
    assert show.describe(show.numbers(torch.zeros(9, 9))) == "1 picture: 9 by 9 numbers"
    ax = show.matrices([pooled, torch.zeros(3, 3, 3), torch.ones(2, 1)], titles=["map", "photo"], signs=["=", "+", "*"])
    ax.text(0, 0, "here")
    assert show.describe(ax) == "1 picture: map: rows 1 -2; 0 0.5, =, photo: 3 by 3 pixels, +, rows 1; 1, here"


def test_of_many_labels_the_first_are_said_and_those_with_words():
    ax = show.photo(np.zeros((4, 4, 3), np.uint8))
    for number in range(30):
        ax.text(0, 0, str(number) if number < 29 else "the last")
    assert show.describe(ax).endswith(", 22, 23, the last, and 5 more")


def test_a_scale_of_colours_is_no_picture():
    figure, ax = plt.subplots()
    figure.colorbar(ax.imshow(np.eye(3)), label="probability lost")
    ax.set(title="cat", xlabel="$x$")
    told = show.describe(figure)
    assert told == "1 picture: cat, across: x. 1 scale of colours: up: probability lost"


def test_a_notebook_stores_the_words_beside_the_picture():
    shell = InteractiveShell.instance()
    try:
        show.style()
        show.style()  # twice does no harm
        figure = show.photo(np.zeros((4, 4, 3), np.uint8), title="a cat").figure
        data, metadata = shell.display_formatter.format(figure)
        assert metadata["image/png"]["alt"] == "1 picture: a cat" and metadata["image/png"]["width"] > 0
        assert "image/png" in data
        assert "image/png" not in shell.display_formatter.format(plt.figure())[0], "an empty figure is no picture"
    finally:
        InteractiveShell.clear_instance()


def test_words_do_not_change_the_picture():
    assert words.with_words(lambda figure: None, plt.figure()) is None
    figure = show.photo(np.zeros((4, 4, 3), np.uint8)).figure
    assert words.with_words(lambda figure: ("png", {"width": 3}), figure) == ("png", {"width": 3, "alt": "1 picture"})
