"""The images: real photographs without a download, your own, Tiny ImageNet, and how an image becomes numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral

import numpy as np
import torch
from PIL import Image

from .images import check_bytes, folder, open_image
from .photos import credit, photo, photo_names, photos
from .tiny_imagenet_200 import class_names, fetch_tiny_imagenet, tiny_imagenet

__all__ = ["centre_crop", "class_names", "credit", "fetch_tiny_imagenet", "folder", "open_image", "photo",
           "photo_names", "photos", "stack", "ten_crop", "tiny_imagenet"]  # fmt: skip

_THINNEST = 100  # the centre crop of an image with sides more unequal than 1:100 would show nothing of it


def stack(images, size: int) -> torch.Tensor:
    """(N,3,size,size) uint8: smaller side to `size` pixels (bilinear, antialiased), then the centre crop of section 3.

    `images`: one image as `open_image` takes it, any iterable of them, a uint8 array (N,H,W,3) or tensor (N,3,H,W).
    An image that has size x size pixels comes out bit for bit; an empty list or a stripe of an image is a ValueError.
    """
    _check_size(size, None)
    squares = [_square(image, size, name) for name, image in _each(images)]
    if not squares:
        raise ValueError("images is empty; give at least one image")
    return torch.stack(squares)


def _each(images) -> Iterator[tuple[str, object]]:
    """Every image with the name that messages call it."""
    if isinstance(images, Mapping):
        raise TypeError(f"images must be a list of images, got a {type(images).__name__}; pass images.values()")
    one = (str, bytes, os.PathLike, Image.Image, np.ndarray, torch.Tensor)
    is_batch = isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4
    if is_batch:
        _check_batch(images)
    if is_batch or (isinstance(images, Iterable) and not isinstance(images, one)):
        yield from ((f"images[{i}]", image) for i, image in enumerate(images))
    else:
        yield "images", images


def _check_batch(images: np.ndarray | torch.Tensor) -> None:
    check_bytes(images, "images")
    shape = tuple(images.shape)
    if isinstance(images, torch.Tensor) and shape[1] != 3:
        fix = "; turn it with .permute(0, 3, 1, 2)" if shape[3] == 3 else ""
        raise ValueError(f"images must be a tensor (N,3,H,W), got shape {shape}{fix}")
    if isinstance(images, np.ndarray) and shape[3] != 3:
        fix = "; turn it with .transpose(0, 2, 3, 1), or pass torch.tensor(images)" if shape[1] == 3 else ""
        raise ValueError(f"images must be an array (N,H,W,3), got shape {shape}{fix}")


def _square(source, size: int, name: str) -> torch.Tensor:
    """(3,size,size) uint8."""
    image = open_image(source, name=name)
    short, long = sorted(image.size)
    if long > _THINNEST * short:
        what = name if not isinstance(source, (str, os.PathLike)) else os.fsdecode(source)
        raise ValueError(f"{what} is a stripe of {image.width}x{image.height} pixels; crop it to at most 1:{_THINNEST}")
    if short != size:
        width, height = (max(size, round(side * size / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return centre_crop(pixels, size).contiguous()


def _check_size(size: int, pixels: torch.Tensor | None) -> None:
    if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")
    if pixels is not None and min(pixels.shape[-2:]) < size:
        raise ValueError(f"size {size} is larger than the images, {tuple(pixels.shape)}; use a smaller crop")


def centre_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """The central size x size pixels of (N,3,H,W)."""
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
