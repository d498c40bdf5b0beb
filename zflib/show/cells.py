"""Matrices side by side with one size of cell: a filter, the image it is stamped on and the map it gives."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .inks import black_or_white
from .pixels import DIVERGING, ORANGE, as_array, image_pixels
from .words import in_rows, short

WRITTEN = 26  # cells in a row of the figure: with more of them, no numbers are written
WIDE, TALL = 12.5, 7.0  # inches at most: a page at 80 dots per inch


def matrices(values: Sequence, ax: Axes | None = None, *, titles: Sequence[str] = (), signs: Sequence[str] = (),
             frames: dict | None = None, full: float | None = None, colours: str = DIVERGING,
             blank: float | None = None) -> Axes:  # fmt: skip
    """Matrices (h,w) side by side, every cell of every one the same size, numbers in them if they are few.

    A uint8 (h,w,3) or a (3,h,w) tensor is drawn as pixels. `titles` stand above them, `signs` between them ("∗", "=");
    `frames` {number of a matrix: (top, left, bottom, right)} frames cells of it. Colours run from -`full` to `full`,
    white is zero; by default each matrix has its own contrast. A number equal to `blank` is not written.
    """
    arrays = [_cells(value) for value in values]
    height, wide = max(len(array) for array in arrays), sum(array.shape[1] for array in arrays)
    gap = max(1.6, 0.06 * wide)  # cells between two matrices
    width = wide + gap * (len(arrays) - 1)
    inches = min(WIDE / width, TALL / (height + 1), 0.9)  # of one cell
    if ax is None:
        ax = plt.subplots(figsize=(inches * width, inches * (height + 1)))[1]
    size, left = _text_size(arrays, inches) if width <= WRITTEN else 0, 0.0
    for i, array in enumerate(arrays):
        top = (height - len(array)) / 2
        _matrix(ax, array, top, left, full=full, colours=colours, size=size, blank=blank)
        if i < len(titles):
            title = textwrap.fill(titles[i], max(12, int(array.shape[1] * inches * 10)))
            ax.text(left + array.shape[1] / 2, top - 0.1 / inches, title, ha="center", va="bottom", fontsize=12)
        if i in (frames or {}):
            _frame(ax, frames[i], top, left)
        left += array.shape[1] + gap
        if i < len(signs) and i + 1 < len(arrays):
            ax.text(left - gap / 2, height / 2, signs[i], ha="center", va="center", fontsize=18)
    ax.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.9), aspect="equal")
    ax.set_axis_off()
    ax.set_label(_in_words(arrays, titles, signs))
    return ax


def _in_words(arrays: Sequence[np.ndarray], titles: Sequence[str], signs: Sequence[str]) -> str:
    """ "image: rows 1 0; 0 1, ∗, filter: rows 1; 2": what `describe` says of matrices."""
    words = []
    for i, array in enumerate(arrays):
        words.append(": ".join([*titles[i : i + 1], in_rows(array)]))
        words += signs[i : i + 1] if i + 1 < len(arrays) else []
    return ", ".join(words)


def _text_size(arrays: Sequence[np.ndarray], inches: float) -> float:
    """The size, in points, at which the longest number fits into a cell; the same in all matrices."""
    longest = max((len(short(value)) for array in arrays if array.ndim == 2 for value in array.flat), default=1)
    return min(16, 0.75 * 72 * inches / (0.64 * max(longest, 2)))


def _cells(value) -> np.ndarray:
    """(h,w) numbers, or (h,w,3) uint8 pixels."""
    if getattr(value, "ndim", 0) == 3:
        return image_pixels(value)
    if (array := as_array(value)).ndim != 2 or not array.size:
        raise ValueError(f"values must be matrices (h,w) or pictures, got shape {array.shape}")
    return array


def _matrix(ax: Axes, array: np.ndarray, top: float, left: float, *, full, colours: str, size: float, blank) -> None:
    """One matrix, its upper left corner at (top, left); `size` is that of its numbers, in points, 0 for none."""
    height, width = array.shape[:2]
    full = full or float(np.abs(array.astype(float)).max()) or 1.0
    low = -full if colours == DIVERGING else 0
    place = (left, left + width, top + height, top)
    drawn = ax.imshow(array, cmap=colours, vmin=low, vmax=full, extent=place, interpolation="nearest")
    lines = {"color": "white" if size else "0.8", "lw": 1.2 if size else 0.2}
    ax.hlines(np.arange(top, top + height + 1), left, left + width, **lines)
    ax.vlines(np.arange(left, left + width + 1), top, top + height, **lines)
    if not size or array.ndim == 3:
        return
    for (row, column), value in np.ndenumerate(array):
        if value == blank:
            continue
        ink = black_or_white(drawn.to_rgba(value))
        place = (left + column + 0.5, top + row + 0.52)
        ax.text(*place, short(value), ha="center", va="center", fontsize=size, color=ink)


def _frame(ax: Axes, box: Sequence[float], top: float, left: float) -> None:
    first, start, last, stop = box
    corner = (left + start, top + first)
    ax.add_patch(Rectangle(corner, stop - start, last - first, fill=False, ec=ORANGE, lw=3, zorder=4))
