"""Filters that are orthonormal, and the two views of a stamp: what notebook 03 shows of the transpose."""

from __future__ import annotations

import itertools

import torch

from .. import show

STAMP, OTHER = show.ORANGE, "#555555"  # the arrow to follow, and the rest


def cosine_waves(side: int = 4) -> torch.Tensor:
    """(3*side*side,3,side,side): orthonormal filters, slow waves first; each looks at one colour (the DCT of JPEG).

    Every product of a wave down the rows and a wave along the columns, for red, green and blue. As many filters as
    numbers under them, each of length 1, any two at right angles.
    """
    places = torch.arange(side) + 0.5
    waves = torch.stack([torch.cos(torch.pi * number * places / side) for number in range(side)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    filters = torch.zeros(side * side, 3, 3, side, side)  # (wave, colour, its channel, row, column)
    for i, (down, across) in enumerate(sorted(itertools.product(range(side), repeat=2), key=sum)):
        for colour in range(3):
            filters[i, colour, colour] = waves[down][:, None] * waves[across]
    return filters.flatten(0, 1)


def two_views(kernel: torch.Tensor) -> show.Axes:
    """Axes of a (3,3) filter, of what one activation writes with it, and of what one pixel reads with it.

    Each number is the weight of the arrow between its cell and the middle one. The arrow of the filter's upper left
    weight is the same in both views; it is drawn in orange.
    """
    titles = ["the filter", "scatter: the activation in the middle writes to 9 pixels",
              "gather: the pixel in the middle reads from 9 activations"]  # fmt: skip
    ax = show.matrices(
        [kernel, kernel, kernel.flip(0, 1)], titles=titles, colours="Greys", full=4 * float(kernel.max())
    )
    for cell in itertools.product(range(3), repeat=2):
        if cell != (1, 1):
            _arrow(ax, 1, (1, 1), cell, followed=cell == (0, 0))
            _arrow(ax, 2, cell, (1, 1), followed=cell == (2, 2))
    return ax


def _arrow(ax: show.Axes, matrix: int, start: tuple[int, int], end: tuple[int, int], *, followed: bool) -> None:
    """An arrow between two cells of a matrix, short enough to leave their numbers free."""
    left, _, _, top = ax.images[matrix].get_extent()
    points = []
    for share in (0.27, 0.73):
        row, column = (a + share * (b - a) for a, b in zip(start, end))
        points.append((left + column + 0.5, top + row + 0.5))
    style = {"arrowstyle": "-|>", "lw": 3 if followed else 1.5, "color": STAMP if followed else OTHER}
    ax.annotate("", xy=points[1], xytext=points[0], arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
