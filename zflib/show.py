"""Pictures: tensors in, matplotlib `Axes` out, and the same pictures as uint8 arrays for panels that must be fast."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from ._arguments import shape_or_type

GREY = 128
DIVERGING = "RdBu_r"  # readable for the colour-blind; white is zero
SEQUENTIAL = "viridis"
ORANGE = "#ff7f0e"  # of frames: stands out on photographs, on grey and on viridis


def style() -> None:
    """Readable defaults for notebook figures: crisp pixels, no frames around pictures, small files."""
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 80, "figure.constrained_layout.use": True, "font.size": 11,
        "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "image.interpolation": "nearest",
        "figure.facecolor": "white",
    })  # fmt: skip


# --- tensors to uint8 pictures ---------------------------------------------------------------------------------------


def _numbers(values) -> np.ndarray:
    array = values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array.astype(np.float32)


def image_pixels(image, net: nn.Module | None = None) -> np.ndarray:
    """(H,W,3) uint8 from one image: a (3,H,W) tensor in the units of `net`, or a PIL image or uint8 array as it is.

    For a network without `denormalise` the tensor's own range is shown as black to white.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    if not isinstance(image, torch.Tensor) or image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image must be one (3,H,W) tensor, a PIL image or a uint8 array, got {shape_or_type(image)}")
    if net is not None:
        image = net.denormalise(image.to(net.mean)) if hasattr(net, "denormalise") else _stretched(image)
    return _rgb(_numbers(image))


def _rgb(values: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 from (3,H,W) or (1,H,W) numbers."""
    return values.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0).repeat(3 // len(values), axis=2)


def _stretched(image: torch.Tensor) -> torch.Tensor:
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp(min=1e-12) * 255


def limit(values, percentile: float = 99.5) -> float:
    """The full range of a signed picture: a high percentile of the |values| that are not zero.

    So one bright pixel cannot dim the rest.
    """
    size = np.abs(_numbers(values))
    size = size[size > 0]
    return float(np.percentile(size, percentile)) if size.size else 1.0


def signed_pixels(projection, *, full: float | None = None) -> np.ndarray:
    """(H,W,3) uint8 from a signed (3,H,W) projection: zero is grey, `full` (default: see `limit`) is white or black."""
    values = _numbers(projection)
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(f"projection must be (3,H,W), got {shape_or_type(projection)}")
    return _rgb(GREY + values / (full or limit(values)) * (GREY - 1))


def map_pixels(activation_map, *, full: float | None = None) -> np.ndarray:
    """(h,w,3) uint8 from one feature map (h,w): dark is zero, bright the map's maximum."""
    values = _numbers(activation_map)
    full = full or max(float(values.max()), 0.0) or 1.0
    colours = plt.get_cmap(SEQUENTIAL)((values / full).clip(0, 1))
    return (colours[..., :3] * 255).round().astype(np.uint8)


def upscale(pixels: np.ndarray, side: int, *, smooth: bool = False) -> np.ndarray:
    """The picture with its longer side at `side` pixels: hard-edged, or bicubic if `smooth`."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.BICUBIC if smooth else Image.NEAREST))


def crop_box(values, box: Sequence[int]):
    """(…,h,w) part of a (…,H,W) tensor or array inside box = (top, left, bottom, right), clipped to its borders."""
    top, left, bottom, right = (max(0, int(edge)) for edge in box)
    return values[..., top:bottom, left:right]


def mosaic(pictures: Sequence[np.ndarray], *, columns: int, gap: int = 2) -> np.ndarray:
    """One (H,W,3) uint8 sheet of pictures in reading order; smaller ones are centred in their cell."""
    rows = math.ceil(len(pictures) / columns)
    height, width = max(p.shape[0] for p in pictures) + gap, max(p.shape[1] for p in pictures) + gap
    sheet = np.full((rows * height - gap, columns * width - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        top = i // columns * height + (height - gap - h) // 2
        left = i % columns * width + (width - gap - w) // 2
        sheet[top : top + h, left : left + w] = picture
    return sheet


# --- pictures composed of pictures: no matplotlib, a few milliseconds ------------------------------------------------


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes inside matplotlib; unlike PIL's own font it has accents, dashes and the times sign."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fit(pixels: np.ndarray, side: int, *, smooth: bool = False, background: int = 255) -> np.ndarray:
    """(side,side,3) uint8: the picture as large as fits (see `upscale`), centred."""
    pixels = upscale(pixels, side, smooth=smooth)
    height, width = pixels.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 3), background, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square


def framed(pixels: np.ndarray, box: Sequence[float], *, scale: float = 1) -> np.ndarray:
    """The picture with a frame around box = (top, left, bottom, right), in pixels `scale` times larger than its own.

    The frame lies just outside the box, keeps within the picture and is never smaller than 8 pixels.
    """
    (height, width), (top, left, bottom, right) = pixels.shape[:2], (edge * scale for edge in box)
    (top, bottom), (left, right) = _frame_side(top, bottom, height), _frame_side(left, right, width)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right, bottom), outline="black", width=4)
    draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=ORANGE, width=2)
    return np.array(image)


def _frame_side(start: float, stop: float, size: int) -> tuple[int, int]:
    """First and last pixel of the frame along one side of a picture of `size` pixels."""
    grow = max(2.0, (8 - (stop - start)) / 2)
    return max(0, min(round(start - grow), size - 9)), min(size - 1, max(round(stop + grow) - 1, 8))


def caption(pixels: np.ndarray, text: str, *, size: int = 13, lines: int | None = None) -> np.ndarray:
    """The picture with `text` in black above it, `size` pixels high, room for `lines` (default: what it needs)."""
    rows = len(_wrapped(text, pixels.shape[1], size)) if lines is None else lines
    return np.concatenate([_strip(text, pixels.shape[1], size, rows), pixels])


@lru_cache(maxsize=256)
def _strip(text: str, width: int, size: int, lines: int) -> np.ndarray:
    strip = Image.new("RGB", (width, lines * (size + 5) + 3), "white")
    draw = ImageDraw.Draw(strip)
    for i, row in enumerate(_wrapped(text, width, size)):
        draw.text((0, i * (size + 5)), row, fill="black", font=font(size))
    return np.asarray(strip)


@lru_cache(maxsize=256)
def _wrapped(text: str, width: int, size: int) -> list[str]:
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font(size).getlength(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows


def beside(pictures: Sequence[np.ndarray], titles: Sequence[str] = (), *, gap: int = 12, size: int = 13) -> np.ndarray:
    """One (H,W,3) uint8 row of pictures, their upper edges aligned, each with its title above it."""
    if len(titles):
        pairs = list(zip(pictures, titles, strict=True))
        lines = max(len(_wrapped(text, picture.shape[1], size)) for picture, text in pairs)
        pictures = [caption(picture, text, size=size, lines=lines) for picture, text in pairs]
    width = sum(picture.shape[1] + gap for picture in pictures) - gap
    row, left = np.full((max(len(picture) for picture in pictures), width, 3), 255, np.uint8), 0
    for picture in pictures:
        row[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return row


def axes_pixels(figure: Figure | Axes) -> np.ndarray:
    """(H,W,3) uint8 of a finished matplotlib figure, for frames drawn ahead of time; the figure is closed."""
    figure = figure.figure if isinstance(figure, Axes) else figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return pixels


# --- pictures on axes ------------------------------------------------------------------------------------------------


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


def _short(value: float) -> str:
    """A number that fits into a small square: 1.5, 0.25, -12, never -0."""
    text = f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


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
    array = _numbers(values)
    ax = _axes(ax)
    full = full or float(np.abs(array).max()) or 1.0
    ax.imshow(array, cmap=colours, vmin=-full if colours == DIVERGING else 0, vmax=full)
    texts = [_short(value) for value in array.flat]
    font_size = _fitting(ax, texts, array.shape[1])
    for ((row, column), value), text in zip(np.ndenumerate(array), texts):
        ink = "white" if abs(value) > 0.65 * full else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=font_size, color=ink)
    ax.set_xticks(np.arange(array.shape[1] + 1) - 0.5, labels=[])
    ax.set_yticks(np.arange(array.shape[0] + 1) - 0.5, labels=[])
    ax.grid(color="white", lw=1.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
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
