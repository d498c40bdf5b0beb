"""What several explorers draw: an image or a map with a frame, bars under words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw
from torch import nn

from .. import show

SIDE = 300  # pixels of a picture; three of them are as wide as a page
GAP = 12  # pixels between pictures
WIDE = 2 * SIDE + GAP  # of a chart
STRIP = 21  # pixels of the line above a picture
ROW = STRIP + SIDE + GAP
TOP = 5  # classes in the bars
QUIET = "#9aa5b1"  # of the bars that are not the one to watch
MARK = "#777777"  # of a height that is marked; no curve is grey


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


LEFT, RIGHT, TOP_EDGE, BOTTOM = 34, 150, 8, 262  # of the curves' field in their chart
FINER = 2  # the chart is drawn so many times as large


@dataclass(frozen=True)
class Chart:
    """Curves over `span` of an amount, from 0 to `full`, in WIDE x SIDE pixels; `one`: a height that is marked."""

    span: tuple[float, float]
    full: float
    one: float | None = None

    def x(self, amount: float) -> float:
        """The column of an amount."""
        low, high = self.span
        return LEFT + (amount - low) / (high - low) * (WIDE - RIGHT - LEFT)

    def amount(self, x: float) -> float:
        """The amount at a column, the nearest one beside the field."""
        low, high = self.span
        return low + min(max((x - LEFT) / (WIDE - RIGHT - LEFT), 0), 1) * (high - low)

    def y(self, value: float) -> float:
        """The row of a value; what is beyond `full` is drawn there."""
        return BOTTOM - min(max(value / self.full, 0), 1) * (BOTTOM - TOP_EDGE)

    def pixels(self, now: float, whole: Mapping[str, dict], measured: Mapping[str, dict]) -> np.ndarray:
        """(SIDE,WIDE,3) uint8: curves {amount: value} by name, `whole` pale, `measured` as points, a line at `now`."""
        sheet = Image.new("RGB", (WIDE * FINER, SIDE * FINER), "white")
        draw = ImageDraw.Draw(sheet)
        self._frame(draw, now)
        colours = dict(zip(measured, cycle(show.CURVES)))
        for name, colour in colours.items():
            self._line(draw, whole.get(name, {}), _paler(colour), 2)
            self._line(draw, measured[name], colour, 2)
            for amount, value in measured[name].items():
                self._dot(draw, amount, value, 2, colour)
            self._dot(draw, now, measured[name][now], 5, colour)
        for name, y in _apart({name: self.y(curve[now]) for name, curve in measured.items()}).items():
            _text(draw, WIDE - RIGHT + 8, y, f"{name[-14:]} {measured[name][now]:.2f}", show.ink(colours[name]), "lm")
        return np.asarray(sheet.resize((WIDE, SIDE), Image.Resampling.BOX))

    def _frame(self, draw: ImageDraw.ImageDraw, now: float) -> None:
        left, right = (FINER * self.x(end) for end in self.span)
        for value in (0, self.full / 2, self.full):
            y = FINER * self.y(value)
            draw.line((left, y, right, y), fill="#e3e6ea", width=FINER)
            _text(draw, LEFT - 5, self.y(value), f"{value:g}", "#555555", "rm")
        if self.one is not None:
            draw.line((left, FINER * self.y(self.one), right, FINER * self.y(self.one)), fill=MARK, width=FINER)
        for amount in (self.span[0], sum(self.span) / 2, self.span[1]):
            _text(draw, self.x(amount), BOTTOM + 6, f"{amount:g}", "#555555", "mt")
        x = FINER * self.x(now)
        draw.line((x, FINER * TOP_EDGE, x, FINER * BOTTOM), fill="#9aa5b1", width=FINER)
        _text(draw, self.x(now), BOTTOM + 21, f"{now:g}", "black", "mt")

    def _line(self, draw: ImageDraw.ImageDraw, curve: Mapping[float, float], colour, width: int) -> None:
        points = [(FINER * self.x(amount), FINER * self.y(value)) for amount, value in sorted(curve.items())]
        draw.line(points, fill=colour, width=FINER * width, joint="curve")

    def _dot(self, draw: ImageDraw.ImageDraw, amount: float, value: float, radius: int, colour) -> None:
        x, y, r = FINER * self.x(amount), FINER * self.y(value), FINER * radius
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _text(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour, anchor: str) -> None:
    draw.text((FINER * x, FINER * y), text, fill=colour, font=show.font(13 * FINER), anchor=anchor)


def _paler(colour: str) -> tuple[int, ...]:
    return tuple(round(0.3 * part + 0.7 * 255) for part in ImageColor.getrgb(colour))


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """The rows of labels, from top to bottom, moved so that none covers another, as long as there is room."""
    least = min(17, (SIDE - 24) / len(places))
    rows, last = {}, -least
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        rows[name] = last = max(y, last + least)
    over = max(0, last - (SIDE - 12))
    return {name: y - over for name, y in rows.items()}


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
    """What the network calls the class, cut after `most` letters, or its number if it has no name for it."""
    classes = getattr(net, "classes", None) or []
    name = classes[index] if index < len(classes) else f"class {index}"
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
