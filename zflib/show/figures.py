"""Pictures on matplotlib `Axes`."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from .inks import CURVES, black_or_white
from .pixels import DIVERGING, ORANGE, as_array, fit, image_pixels, mosaic, signed_pixels, upscale
from .words import in_rows, short, with_words


def style() -> None:
    """Readable defaults for notebook figures: crisp pixels, no frames around pictures, twice as fine as a page.

    In a notebook every figure is stored with its description (see `describe`) as the text alternative `alt`.
    """
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 80, "figure.constrained_layout.use": True, "font.size": 11,
        "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "image.interpolation": "nearest",
        "figure.facecolor": "white", "axes.prop_cycle": plt.cycler(color=CURVES),
    })  # fmt: skip
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None:  # in a notebook
        from matplotlib_inline.backend_inline import set_matplotlib_formats  # comes with IPython

        set_matplotlib_formats("retina")
        png = shell.display_formatter.formatters["image/png"]
        png.for_type(Figure, partial(with_words, png.lookup_by_type(Figure)))


def axes_pixels(figure: Figure | Axes) -> np.ndarray:
    """(H,W,3) uint8 of a finished matplotlib figure, for frames drawn ahead of time; the figure is closed."""
    figure = figure.figure if isinstance(figure, Axes) else figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return pixels


def axes_at(places: Sequence[tuple[float, float, float, float]], *, size: tuple[float, float]) -> list[Axes]:
    """Empty Axes of one new figure of `size` inches, each at (left, bottom, width, height) in parts of it."""
    figure = plt.figure(figsize=size, dpi=80, layout="none")
    return [figure.add_axes(place) for place in places]


def _axes(ax: Axes | None, size: tuple[float, float] = (3.2, 3.2)) -> Axes:
    return plt.subplots(figsize=size)[1] if ax is None else ax


def _draw(pixels: np.ndarray, ax: Axes | None, title: str | None, *, smooth: bool = False) -> Axes:
    ax = _axes(ax)
    ax.imshow(pixels, interpolation="bicubic" if smooth else "nearest")
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title)
    return ax


def photo(image, ax: Axes | None = None, *, net: nn.Module | None = None, title: str | None = None, box=None) -> Axes:
    """One image; `box` = (top, left, bottom, right) in its pixels draws a receptive field on it."""
    ax = _draw(image_pixels(image, net), ax, title)
    return ax if box is None else outline(ax, box)


def outline(ax: Axes, box: Sequence[int]) -> Axes:
    """Draw box = (top, left, bottom, right), in pixels of the picture on `ax`; what lies outside it is not shown."""
    top, left, bottom, right = box
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, lw=2, ec=ORANGE, zorder=3))
    return ax


def projection(values, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """One signed (3,H,W) projection, centred on grey."""
    return _draw(signed_pixels(values), ax, title, smooth=True)


def panels(pictures: Sequence, *, titles: Sequence[str] = (), columns: int | None = None, size: float = 2.4):
    """The Axes of pictures side by side, in rows: uint8 arrays as they are, (3,H,W) tensors as projections."""
    columns = columns or len(pictures)
    rows = math.ceil(len(pictures) / columns)
    _, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + 0.3) * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (picture, ax) in enumerate(zip(pictures, axes.flat)):
        pixels = signed_pixels(picture) if isinstance(picture, torch.Tensor) else image_pixels(picture)
        _draw(pixels, ax, titles[i] if i < len(titles) else None, smooth=isinstance(picture, torch.Tensor))
    return axes


def grid(pictures: Sequence, ax: Axes | None = None, *, rows: Sequence, columns: Sequence, side: int = 64) -> Axes:
    """(H,W,3) uint8 pictures in reading order, `side` pixels each, with a label for every row and column."""
    ax = _axes(ax, (1 + (side + 2) * len(columns) / 80, 0.6 + (side + 2) * len(rows) / 80))
    ax.imshow(mosaic([fit(picture, side, smooth=True) for picture in pictures], columns=len(columns)))
    ax.set_xticks([side / 2 + (side + 2) * i for i in range(len(columns))], list(columns))
    ax.set_yticks([side / 2 + (side + 2) * i for i in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def filters(conv: nn.Conv2d, ax: Axes | None = None, *, columns: int = 16, title: str | None = None) -> Axes:
    """The first layer's filters (C,3,k,k) as small colour pictures, zero as grey, each scaled to its own range."""
    weight = conv.weight.detach()
    if weight.shape[1] not in (1, 3):
        got = f"conv takes {weight.shape[1]} channels"
        raise ValueError(f"{got}: only filters that look at an image (3 channels) are pictures")
    sheet = mosaic([upscale(signed_pixels(w, full=float(w.abs().max()) or 1.0), 42) for w in weight], columns=columns)
    height, width = sheet.shape[:2]
    return _draw(sheet, _axes(ax, (9, 9 * height / width)), title)


def _fitting(ax: Axes, texts: Sequence[str], columns: int) -> float:
    """The font size, at most 10, at which the longest text fits into one of the columns of `ax`."""
    spec = ax.get_subplotspec()
    side = ax.figure.bbox.width * 72 / ax.figure.dpi / (spec.get_gridspec().ncols if spec else 1)  # points
    return min(10.0, 0.85 * side / columns / (0.6 * max(map(len, texts))))


def numbers(
    values, ax: Axes | None = None, *, title: str | None = None, full: float | None = None, colours: str = DIVERGING
) -> Axes:
    """A small (h,w) matrix as coloured squares with its numbers written in them: for maps that fit on a page.

    The colours run from -full to full, or from 0 to full if they are not the diverging ones.
    """
    array = as_array(values)
    ax = _axes(ax)
    full = full or float(np.abs(array).max()) or 1.0
    drawn = ax.imshow(array, cmap=colours, vmin=-full if colours == DIVERGING else 0, vmax=full)
    texts = [short(value) for value in array.flat]
    font_size = _fitting(ax, texts, array.shape[1])
    for ((row, column), value), text in zip(np.ndenumerate(array), texts):
        ink = black_or_white(drawn.to_rgba(value))
        ax.text(column, row, text, ha="center", va="center", fontsize=font_size, color=ink)
    ax.set_xticks(np.arange(array.shape[1] + 1) - 0.5, labels=[])
    ax.set_yticks(np.arange(array.shape[0] + 1) - 0.5, labels=[])
    ax.grid(color="white", lw=1.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_label(in_rows(array))
    if title is not None:
        ax.set_title(title)
    return ax


def difference_png(yours: np.ndarray | None, target: np.ndarray) -> bytes:
    """PNG of *yours | target | difference* for two (h,w) maps; without `yours` of the target alone."""
    pictures = {"target": target} if yours is None else {"yours": yours, "target": target, "difference": yours - target}
    rows, columns = target.shape
    height = 0.5 + min(2.4, 2.4 * rows / columns, 0.8 * rows)  # inches: a few numbers need no large squares
    figure, axes = plt.subplots(
        1, len(pictures), figsize=(2.8 * len(pictures), height), dpi=72, layout="constrained", squeeze=False
    )
    full = float(np.abs(target).max()) or 1.0
    for ax, (title, values) in zip(axes.flat, pictures.items()):
        if values.size <= 64 and columns <= 16:
            numbers(values, ax, title=title, full=full)
        else:
            ax.imshow(values, cmap=DIVERGING, vmin=-full, vmax=full)
            ax.set(xticks=[], yticks=[], title=title)
            ax.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72)
    plt.close(figure)
    return buffer.getvalue()
