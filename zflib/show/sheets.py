"""Sheets of pictures as wide as a page, with their labels in them: Figure 2, posters, and how notebooks store them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .light import calm, lit
from .pixels import GREY, caption, fit, font, image_pixels, limit, mosaic, signed_pixels

WIDTH = 2000  # of a sheet: a page shows it half as wide, on fine screens every pixel
TEXT = 30  # pixels of a label's letters, half as many on a page
GAP = 8  # between tiles
SPACE = 40  # between blocks of tiles
BEYOND = 235  # where a patch reaches beyond its image


def figure2(rows: Sequence, net: nn.Module | None = None, *, across: int = 2, raw: bool = False) -> np.ndarray:
    """(H,2000,3) uint8: one channel a row, as patches | the same lit | projections, `across` tiles wide each.

    Each of `rows` is (label, patches (k,3,h,w) in the units of `net` or uint8 pictures, projections (k,3,h,w)); see
    `channel_label`. Projections are calmed unless `raw`. On a page two tiles across are 158 pixels wide, three 104.
    Light grey in a patch is beyond its image: exactly 0 in the tensor.
    """
    if not rows:
        raise ValueError("rows must be at least one (label, patches, projections), got none")
    block = (WIDTH - 2 * SPACE) // 3
    side = (block - (across - 1) * GAP) // across
    parts = [_headings(("image patches", "the same, lit by their projections", "projections"), block)]
    for label, patches, projections in rows:
        if len(patches) != len(projections) or not len(patches):
            got = f"{len(patches)} and {len(projections)}"
            raise ValueError(f"{label}: patches and projections must be equally many, got {got}")
        sheets = [mosaic(tiles, columns=across, gap=GAP) for tiles in _three(patches, projections, net, side, raw)]
        parts += [_line(label, WIDTH), _blocks(sheets)]
    return np.concatenate(parts)


def channel_label(layer: str, channel: int, values) -> str:
    """ "conv5 channel 109: 12.3 … 9.8": the activations behind the first and the last of its tiles."""
    values = [float(value) for value in values]
    return f"{layer} channel {channel}: {values[0]:.3g} … {values[-1]:.3g}"


def projection_tile(
    projection: torch.Tensor, side: int, *, sigma: float | None = None, raw: bool = False
) -> np.ndarray:
    """(side,side,3) uint8: one projection, calmed unless `raw`, enlarged smoothly, 99 in 100 of its values in range."""
    values = projection if raw else calm(projection, sigma=sigma)
    return fit(signed_pixels(values, full=limit(values, 99)), side, smooth=True, background=GREY)


def _three(patches, projections, net, side: int, raw: bool) -> tuple[list, list, list]:
    """Tiles of patches, of the same lit, and of projections."""
    pictures = [image_pixels(patch, net) for patch in patches]
    lights = [lit(picture, projection) for picture, projection in zip(pictures, projections)]
    pictures = [_marked(picture, patch) for picture, patch in zip(pictures, patches)]
    photos, lights = ([fit(tile, side, smooth=True) for tile in tiles] for tiles in (pictures, lights))
    return photos, lights, [projection_tile(projection, side, raw=raw) for projection in projections]


def _marked(picture: np.ndarray, patch) -> np.ndarray:
    """The picture, light grey beyond the image: there `deconv.patches` leaves exact zeros, which would look brown."""
    if not isinstance(patch, torch.Tensor):
        return picture
    return np.where((patch == 0).all(dim=0).cpu().numpy()[..., None], np.uint8(BEYOND), picture)


def _blocks(sheets: Sequence[np.ndarray]) -> np.ndarray:
    """Three sheets side by side, spread over the width of the page, and some space below them."""
    page = np.full((sheets[0].shape[0] + SPACE // 2, WIDTH, 3), 255, np.uint8)
    for i, sheet in enumerate(sheets):
        left = i * ((WIDTH - 2 * SPACE) // 3 + SPACE)
        page[: sheet.shape[0], left : left + sheet.shape[1]] = sheet
    return page


def _line(text: str, width: int, *, size: int = TEXT, colour: str = "black") -> np.ndarray:
    """One line of text on white."""
    image = Image.new("RGB", (width, round(size * 1.6)), "white")
    ImageDraw.Draw(image).text((0, round(size * 0.2)), text, fill=colour, font=font(size))
    return np.asarray(image)


def _headings(texts: Sequence[str], block: int) -> np.ndarray:
    """Column headings above three blocks."""
    space = np.full((round(TEXT * 1.6), SPACE, 3), 255, np.uint8)
    parts = [part for text in texts for part in (_line(text, block, colour="#555555"), space)]
    row = np.concatenate(parts[:-1], axis=1)
    return np.pad(row, ((0, 0), (0, WIDTH - row.shape[1]), (0, 0)), constant_values=255)


def poster(tiles: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 5, width: int = WIDTH) -> np.ndarray:
    """(H,width,3) uint8: pictures in reading order, `columns` a row, each with its caption below it.

    A tile is (h,w,3) uint8, enlarged smoothly to fill its square.
    """
    if len(tiles) != len(captions) or not tiles:
        raise ValueError(f"captions must be one for each tile, got {len(captions)} for {len(tiles)} tiles")
    side = (width - (columns - 1) * 2 * GAP) // columns
    cards = [_card(fit(tile, side, smooth=True), text) for tile, text in zip(tiles, captions)]
    tall = max(len(card) for card in cards)
    cards = [np.pad(card, ((0, tall - len(card)), (0, 0), (0, 0)), constant_values=255) for card in cards]
    sheet = mosaic(cards, columns=columns, gap=2 * GAP)
    return np.pad(sheet, ((0, 0), (0, max(0, width - sheet.shape[1])), (0, 0)), constant_values=255)


def _card(tile: np.ndarray, text: str) -> np.ndarray:
    words = caption(np.zeros((0, tile.shape[1], 3), np.uint8), text, size=TEXT)
    return np.concatenate([tile, words])


def on_page(pixels: np.ndarray, alt: str, *, width: int = WIDTH // 2):
    """The (H,W,3) uint8 picture for a notebook's last line: shown `width` pixels wide, and sharp on fine screens.

    Stored as JPEG, some 100 kB for each row of `figure2`. `alt` describes it for those who cannot see it.
    """
    from IPython.display import Image as Shown  # only notebooks have need of it

    return Shown(data=encoded(pixels, "JPEG", quality=88), format="jpeg", width=min(width, pixels.shape[1]), alt=alt)


def encoded(pixels: np.ndarray, kind: str, **settings) -> bytes:
    """The bytes of a PNG or JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()
