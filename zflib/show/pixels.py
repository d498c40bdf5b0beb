"""Tensors to uint8 pictures, and pictures composed of pictures: no matplotlib axes, a few milliseconds each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from .._arguments import shape_or_type

GREY = 128
DIVERGING = "RdBu_r"  # readable for the colour-blind; white is zero
SEQUENTIAL = "viridis"
ORANGE = "#ff7f0e"  # of frames: stands out on photographs, on grey and on viridis


# --- tensors to uint8 pictures ---------------------------------------------------------------------------------------


def as_array(values) -> np.ndarray:
    """float32 numbers of a tensor on any device, or of what numpy takes."""
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
    return _rgb(as_array(image))


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
    size = np.abs(as_array(values))
    size = size[size > 0]
    return float(np.percentile(size, percentile)) if size.size else 1.0


def signed_pixels(projection, *, full: float | None = None) -> np.ndarray:
    """(H,W,3) uint8 from a signed (3,H,W) projection: zero is grey, `full` (default: see `limit`) is white or black."""
    values = as_array(projection)
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(f"projection must be (3,H,W), got {shape_or_type(projection)}")
    return _rgb(GREY + values / (full or limit(values)) * (GREY - 1))


def map_pixels(activation_map, *, full: float | None = None) -> np.ndarray:
    """(h,w,3) uint8 from one feature map (h,w): dark is zero, bright the map's maximum."""
    values = as_array(activation_map)
    full = full or max(float(values.max()), 0.0) or 1.0
    colours = mpl.colormaps[SEQUENTIAL]((values / full).clip(0, 1))
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
    for word in filter(None, re.split(r"[ \t\n]+", text)):  # unlike str.split it leaves a no-break space alone
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
