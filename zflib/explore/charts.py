"""What several explorers draw: an image or a map with a frame, bars under words."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show

SIDE = 300  # pixels of a picture; three of them are as wide as a page
GAP = 12  # pixels between pictures
STRIP = 21  # pixels of the line above a picture
ROW = STRIP + SIDE + GAP
TOP = 5  # classes in the bars
QUIET = "#9aa5b1"  # of the bars that are not the one to watch


def framed_image(image: torch.Tensor, net: nn.Module, box, side: int = SIDE) -> np.ndarray:
    """(side,side,3) uint8: a (3,H,W) image in the units of `net`, the box (top, left, bottom, right) framed."""
    pixels = show.upscale(show.image_pixels(image, net), side, smooth=True)
    return show.fit(show.framed(pixels, box, scale=side / max(image.shape[1:])), side)


def framed_map(values: torch.Tensor, row: int, column: int, *, side: int = SIDE, full=None) -> np.ndarray:
    """(side,side,3) uint8: an (h,w) map, one position of it framed; `full` as in `show.map_pixels`."""
    pixels = show.upscale(show.map_pixels(values, full=full), side)
    box = (row, column, row + 1, column + 1)
    return show.fit(show.framed(pixels, box, scale=side / max(values.shape)), side)


def place(x: float, y: float, shape, *, side: int) -> tuple[float, float]:
    """Row and column, as pixels of a picture of `shape` (rows, columns), under pixel (x, y) of its `show.fit`.

    What lies beside the picture counts as its nearest edge.
    """
    scale, spot = max(shape) / side, []
    for at, size in zip((y, x), shape):
        margin = (side - round(size / scale)) // 2
        spot.append(min(max((at + 0.5 - margin) * scale, 0), size - 1e-6))
    return tuple(spot)


def bars(rows: list[tuple[str, int, str]], *, step: int) -> Image.Image:
    """For each row its words and, below, a bar of so many pixels in a colour; SIDE wide, and as high or higher."""
    sheet = Image.new("RGB", (SIDE, max(SIDE, step * len(rows))), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (words, length, colour) in enumerate(rows):
        top = number * step
        if length:
            draw.rectangle((0, top + 19, length, top + min(step - 6, 36)), fill=colour)
        draw.text((0, top + 1), words, fill="black", font=show.font(13))
    return sheet


def class_bars(probabilities: torch.Tensor, net: nn.Module, label: int) -> np.ndarray:
    """(SIDE,SIDE,3) uint8: the most probable classes as bars, the watched one in orange; their full length is 1."""
    rows = []
    for index in probabilities.argsort(descending=True, stable=True)[:TOP].tolist():
        value = float(probabilities[index])
        colour = show.ORANGE if index == label else QUIET
        rows.append((f"{class_name(net, index)} {value:.2f}", max(1, round(value * (SIDE - 1))), colour))
    return np.asarray(bars(rows, step=SIDE // TOP))


def class_name(net: nn.Module, index: int, *, most: int = 200) -> str:
    """What the network calls the class, cut after `most` letters, or its number."""
    classes = getattr(net, "classes", None)
    name = classes[index] if classes else f"class {index}"
    return name if len(name) <= most else f"{name[: most - 1]}…"


def rows_of(rows: list[list[np.ndarray]], titles: list[list[str]]) -> np.ndarray:
    """(H,W,3) uint8: rows of SIDE pixels below each other, each picture with one line above it, ROW pixels a row."""
    sheets = []
    for pictures, lines in zip(rows, titles):
        tiles = [show.caption(picture, line, lines=1) for picture, line in zip(pictures, lines, strict=True)]
        sheets.append(np.pad(show.beside(tiles, gap=GAP), ((0, GAP), (0, 0), (0, 0)), constant_values=255))
    return np.concatenate(sheets)


def row_and_column(x: int, y: int) -> tuple[int, int]:
    """Which picture of `rows_of` pixel (x, y) is in."""
    return y // ROW, x // (SIDE + GAP)
