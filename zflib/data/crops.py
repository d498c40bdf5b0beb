"""Images become squares of pixels: resized, stacked, and cropped once or ten times (section 3)."""

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral

import numpy as np
import torch
from PIL import Image

from .images import open_image


def stack(images, size: int) -> torch.Tensor:
    """(N,3,size,size) uint8: smaller side to `size` pixels (bilinear, antialiased), then the centre crop of section 3.

    `images`: one image as `open_image` takes it, any iterable of them, a uint8 array (N,H,W,3) or tensor (N,3,H,W).
    An image that has size x size pixels comes out bit for bit; an empty list is a ValueError.
    """
    _check_size(size)
    squares = [_square(open_image(image, name=name), size) for name, image in _each(images)]
    if not squares:
        raise ValueError("images is empty; give at least one image")
    return torch.stack(squares)


def _each(images) -> Iterator[tuple[str, object]]:
    """Every image with the name that messages call it."""
    if isinstance(images, Mapping):
        raise TypeError(f"images must be a list of images, got a {type(images).__name__}; pass images.values()")
    numbers = isinstance(images, (np.ndarray, torch.Tensor))
    one = images.ndim != 4 if numbers else isinstance(images, (str, bytes, os.PathLike, Image.Image))
    if one or not isinstance(images, Iterable):
        yield "images", images
    else:
        yield from ((f"images[{i}]", image) for i, image in enumerate(images))


def _square(image: Image.Image, size: int) -> torch.Tensor:
    """(3,size,size) uint8."""
    short = min(image.size)
    if short != size:
        width, height = (max(size, round(side * size / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return centre_crop(pixels, size).contiguous()


def _check_size(size: int, pixels: torch.Tensor | None = None) -> None:
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")
    if pixels is not None and min(pixels.shape[-2:]) < size:
        raise ValueError(f"size {size} is larger than the images, {tuple(pixels.shape)}; use a smaller crop")


def centre_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """The central size x size pixels of (N,3,H,W); a size larger than the images is a ValueError."""
    _check_size(size, pixels)
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]


def ten_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(N,10,3,size,size) from (N,3,H,W): top left, top right, bottom left, bottom right, centre, then mirrored."""
    _check_size(size, pixels)
    bottom, right = pixels.shape[-2] - size, pixels.shape[-1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = torch.stack([pixels[..., top : top + size, left : left + size] for top, left in corners], dim=1)
    return torch.cat([crops, crops.flip(-1)], dim=1)
