"""The pictures of an atlas: 27 tiles of a channel in one file, and a wall of all channels of a layer."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import show

K = 9  # photographs of a channel
TILE = 150  # pixels of a patch, a lit patch and a projection
WALL_TILE = 100
WALL_COLUMNS = 16
BLUR = 90  # a projection is blurred by a Gaussian of its side over this: as much on the page for every layer


def empty_sheet() -> np.ndarray:
    """(450,1350,3) uint8, grey: room for nine patches, the same lit, and their projections, three squares of 3 x 3."""
    return np.full((3 * TILE, 9 * TILE, 3), show.GREY, np.uint8)


def draw(sheet: np.ndarray, rank: int, photograph: np.ndarray, projection: torch.Tensor, box: Sequence[int]) -> None:
    """Put patch, lit patch and projection of the channel's photograph number `rank` into its sheet.

    `photograph` (H,W,3) uint8 and `projection` (3,H,W) are cut at box = (top, left, bottom, right), inside both.
    """
    patch, values = show.crop_box(photograph.transpose(2, 0, 1), box).transpose(1, 2, 0), show.crop_box(projection, box)
    calm = show.calm(values, sigma=max(values.shape[-2:]) / BLUR)
    for group, picture in enumerate((patch, show.lit(patch, values), show.signed_pixels(calm))):
        top, left = tile_corner(group, rank)
        sheet[top : top + TILE, left : left + TILE] = show.fit(picture, TILE, smooth=True, background=show.GREY)


def tile_corner(group: int, rank: int) -> tuple[int, int]:
    """Top and left of a tile in a sheet; group 0: patches, 1: lit, 2: projections."""
    return rank // 3 * TILE, (3 * group + rank % 3) * TILE


def wall(sheets: Sequence[Path]) -> np.ndarray:
    """(H,W,3) uint8: the strongest projection of every channel, from the finished sheets of a layer."""
    rows, (top, left) = math.ceil(len(sheets) / WALL_COLUMNS), tile_corner(2, 0)
    picture = np.full((rows * WALL_TILE, WALL_COLUMNS * WALL_TILE, 3), show.GREY, np.uint8)
    for channel, path in enumerate(sheets):
        row, column = divmod(channel, WALL_COLUMNS)
        with Image.open(path) as sheet:
            tile = np.asarray(sheet.convert("RGB"))[top : top + TILE, left : left + TILE]
        above, before = row * WALL_TILE, column * WALL_TILE
        picture[above : above + WALL_TILE, before : before + WALL_TILE] = show.fit(close(tile), WALL_TILE, smooth=True)
    return picture


def close(tile: np.ndarray) -> np.ndarray:
    """The square part of a (h,h,3) projection's tile that holds nearly all of its contrast, at least half as wide."""
    contrast = np.abs(tile.astype(float) - show.GREY).sum(axis=2) ** 2
    spans = [_span(contrast.sum(axis=axis)) for axis in (1, 0)]
    side = max(len(tile) // 2, *(last + 1 - first for first, last in spans))
    top, left = (min(max((first + last + 1 - side) // 2, 0), len(tile) - side) for first, last in spans)
    return np.ascontiguousarray(tile[top : top + side, left : left + side])


def _span(weights: np.ndarray, outside: float = 0.02) -> tuple[int, int]:
    """First and last index of the middle of some weights: all but a share `outside` on either side."""
    share = weights.cumsum() / max(weights.sum(), 1e-9)
    return int(np.searchsorted(share, outside)), min(int(np.searchsorted(share, 1 - outside)), len(weights) - 1)


def encoded(pixels: np.ndarray) -> bytes:
    """WebP bytes of a picture: a third of what a JPEG takes that looks as good."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=80, method=2)
    return file.getvalue()
