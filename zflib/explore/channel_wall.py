"""The wall: every channel of a layer as a tile, and one of them opened."""

from __future__ import annotations

import math
import time
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from .._arguments import check_choice, check_net
from ..studies.gallery import Gallery
from ..studies.units import (
    TITLES,
    VIEWS,
    Unit,
    Units,
    describe_unit,
    patch_tiles,
    projection_pixels,
    sheet,
    unit_tiles,
)
from .ahead import Ahead
from .panels import Panel, Placing, list_slider, slider, toggle
from .unit_explorer import first_shown, looked_at, window_pixels

COLUMNS, ROWS = 16, 6  # tiles of a page
PAGE = COLUMNS * ROWS
TILE, GAP = 58, 2  # pixels of a tile, and between two
MARGIN = 28  # pixels on the left, for the number of each row's first channel
TITLE, SPACE = 21, 10  # pixels
NINE, SIDE = 9, 160  # pictures of the opened channel, and their pixels
WHOLE = 3 * SIDE + 2 * 4  # pixels of three in a row
PATIENCE = 1.5  # seconds until a page is shown with the tiles that are there


class Mined:
    """A wall over images: its tiles and nine patches | projections are computed when they are looked at."""

    def __init__(self, known: Units):
        self.known, self.counts = known, known.counts
        self._units = Ahead(lambda layer, channel: looked_at(known, layer, channel, NINE))

    def tiles(self, layer: str, channels: range) -> torch.Tensor:
        """(B,3,h,w) the strongest projections."""
        return self.known.strongest(layer, channels)

    def opened(self, layer: str, channel: int, view: str) -> tuple[np.ndarray, str]:
        """Nine patches beside nine projections, and words."""
        unit: Unit = self._units(layer, channel)
        near = [(layer, other) for other in (channel + 1, channel - 1) if 0 <= other < self.counts[layer]]
        self._units.prepare(near)
        pictures = [
            sheet(tiles, columns=3, rows=3, gap=4) for tiles in (patch_tiles(unit, SIDE), unit_tiles(unit, view, SIDE))
        ]
        titles = [f"{unit.address}: what it sees in its strongest images", TITLES[view]]
        return show.beside(pictures, titles, gap=SPACE), describe_unit(unit, self.known.names(unit))


class Shipped:
    """A wall of a gallery: projections, class names and numbers, without the images."""

    def __init__(self, gallery: Gallery):
        self.gallery = gallery
        self.counts = {layer: len(peaks.values) for layer, peaks in gallery.peaks.items()}

    def tiles(self, layer: str, channels: range) -> torch.Tensor:
        """(B,3,h,w) the strongest projections."""
        return self.gallery.tiles[layer][channels.start : channels.stop].float()

    def opened(self, layer: str, channel: int, view: str) -> tuple[np.ndarray, str]:
        """The strongest projection, large, and those of the other images where the gallery has them; and words."""
        gallery, view = self.gallery, _without_patches(view)
        pictures = [projection_pixels(gallery.tile(layer, channel), WHOLE, view=view)]
        titles = [f"{layer}:{channel}: the projection from its strongest image, {view}"]
        if channel in gallery.chosen[layer].tolist():
            few = [projection_pixels(one, SIDE, view=view) for one in gallery.nine(layer, channel)[:NINE].float()]
            pictures, titles = [*pictures, sheet(few, columns=3, rows=3, gap=4)], [*titles, "from its strongest images"]
        value, names = float(gallery.peaks[layer].values[channel, 0]), gallery.class_names(layer, channel)
        words = f"{layer}:{channel}. {value:.3g} over its strongest image. Its strongest images: {', '.join(names)}."
        return show.beside(pictures, titles, gap=SPACE), words


def _without_patches(view: str) -> str:
    """How a projection is drawn where there is no patch to light."""
    return "calm" if view == "lit" else view


class Wall:
    """Pages of tiles over a source, `Mined` or `Shipped`; a page that takes long is shown before it is complete."""

    def __init__(self, source: Mined | Shipped):
        self.source, self.patience = source, math.inf  # until there is a panel to draw again
        self.rows = Ahead(self._row, kept=PAGE)
        self._whole = lru_cache(maxsize=8)(self._page)

    def _row(self, layer: str, number: int) -> torch.Tensor:
        """(B,3,h,w) the tiles of one row."""
        first = number * COLUMNS
        return self.source.tiles(layer, range(first, min(first + COLUMNS, self.source.counts[layer])))

    def pixels(self, layer: str, channel: int, view: str, later) -> np.ndarray:
        """(H,W,3) uint8: the channel's page with its tile framed; `later` is called when more tiles are ready."""
        page = channel // PAGE
        last = -(-self.source.counts[layer] // COLUMNS)
        keys = [(layer, row) for row in range(page * ROWS, min((page + 1) * ROWS, last))]
        until = time.monotonic() + self.patience
        self.rows.prepare(keys)
        for key in keys:
            if time.monotonic() < until:
                self.rows(*key)
        complete = not self.rows.waiting(keys, later)
        drawn = (self._whole if complete else self._page)(layer, page, view)
        row, column = divmod(channel % PAGE, COLUMNS)
        top, left = TITLE + row * (TILE + GAP), MARGIN + column * (TILE + GAP)
        return show.framed(drawn, (top, left, top + TILE, left + TILE))

    def _page(self, layer: str, page: int, view: str) -> np.ndarray:
        count, first = self.source.counts[layer], page * PAGE
        last = min(first + PAGE, count)
        tiles = [tile for row in range(first // COLUMNS, -(-last // COLUMNS)) for tile in self._tiles(layer, row, view)]
        rows = ROWS if count > PAGE else -(-count // COLUMNS)
        grid = sheet(tiles, columns=COLUMNS, rows=rows, gap=GAP)
        width = MARGIN + COLUMNS * (TILE + GAP) - GAP
        picture = Image.new("RGB", (width, TITLE + len(grid)), "white")
        picture.paste(Image.fromarray(grid), (MARGIN, TITLE))
        draw = ImageDraw.Draw(picture)
        words = f"{layer}, channels {first} to {last - 1} of {count}: each one's projection from its strongest image"
        draw.text((0, 0), words, fill="black", font=show.font(13))
        for row in range(0, last - first, COLUMNS):
            draw.text(
                (0, TITLE + row // COLUMNS * (TILE + GAP) + 22), str(first + row), fill="#666", font=show.font(11)
            )
        return np.asarray(picture)

    def _tiles(self, layer: str, row: int, view: str) -> list[np.ndarray]:
        """Of one row; empty ones while they are computed."""
        projections = self.rows.ready(layer, row)
        if projections is None:
            missing = min(COLUMNS, self.source.counts[layer] - row * COLUMNS)
            return [np.full((TILE, TILE, 3), 235, np.uint8)] * missing
        return [projection_pixels(one, TILE, view=_without_patches(view)) for one in projections]

    def channel_at(self, layer: str, channel: int, x: int, y: int) -> int | None:
        """The channel whose tile lies at column x and row y of the page that shows `channel`, if one does."""
        column, row = (x - MARGIN) // (TILE + GAP), (y - TITLE) // (TILE + GAP)
        found = channel // PAGE * PAGE + row * COLUMNS + column
        inside = 0 <= column < COLUMNS and 0 <= row < ROWS and found < self.source.counts[layer]
        return found if inside else None


class Pages:
    """The controls of the channel and of the page: moving the page goes to its first channel."""

    def __init__(self, count: int, channel: int):
        self.channel = slider("channel", 0, count - 1, channel)
        self.page = slider("page", 1, -(-count // PAGE), channel // PAGE + 1)
        self.controls, self._placing = {"channel": self.channel, "page": self.page}, Placing()
        self.page.observe(self._turn, names="value")

    def _turn(self, change: dict) -> None:
        if not self._placing.now:
            self.channel.value = min((change["new"] - 1) * PAGE, self.channel.max)

    def placed(self, count: int, channel: int) -> int:
        """The channel, within a layer of `count`; the page's slider follows."""
        channel = min(channel, count - 1)
        with self._placing:
            self.channel.max, self.page.max, self.page.value = count - 1, -(-count // PAGE), channel // PAGE + 1
        return channel


def wall(
    net: nn.Module, images=None, *, unit: str | None = None, layer: str | None = None, gallery: Gallery | None = None,
    view: str = "calm", **found,
) -> Panel:  # fmt: skip
    """Every channel of a layer as a tile, its strongest projection; below, the marked one's nine patches | projections.

    The arrow keys in a slider, or a click, mark another tile. `images`, `unit`, `layer`, `view` and the rest are as in
    `explore.units`. `gallery`: one that was mined before; without images it is shown as it is, projections and names
    only, with images its peaks are looked up in them. A page that takes longer than two seconds is filled row by row.
    Bad input raises ValueError or TypeError.
    """
    check_net(net)
    check_choice("view", view, VIEWS)
    if gallery is not None and images is None:
        source = Shipped(gallery)
    else:
        peaks = {} if gallery is None else {"peaks": gallery.peaks}
        source = Mined(Units(net, window_pixels(net, images), **(peaks | found)))
    start, first = first_shown(net, source.counts, unit, layer)
    tiles, pages = Wall(source), Pages(source.counts[start], first)

    def draw(layer: str, channel: int, page: int, view: str) -> tuple[np.ndarray, str]:
        channel = pages.placed(source.counts[layer], channel)
        below, words = source.opened(layer, channel, view)
        above = tiles.pixels(layer, channel, view, lambda: panel.redraw())
        width = max(above.shape[1], below.shape[1])
        parts = [
            np.pad(part, ((0, SPACE), (0, width - part.shape[1]), (0, 0)), constant_values=255)
            for part in (above, below)
        ]
        return np.concatenate(parts), words

    def pointer(x: int, y: int, start: tuple[int, int]) -> dict[str, int]:
        channel = tiles.channel_at(layers.value, pages.channel.value, x, y)
        return {} if channel is None else {"channel": channel}

    layers = list_slider("layer", list(source.counts), start)
    panel = Panel(draw, {"layer": layers, **pages.controls, "view": toggle("view", VIEWS, view)}, pointer=pointer)
    tiles.patience = PATIENCE
    return panel
