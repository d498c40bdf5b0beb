"""Tensors to pictures: uint8 arrays for panels that must be fast, and matplotlib axes, which only this folder draws."""

from .figures import (
    axes_pixels,
    difference_png,
    filters,
    grid,
    numbers,
    outline,
    panels,
    photo,
    projection,
    style,
)  # fmt: skip
from .pixels import (
    DIVERGING,
    GREY,
    ORANGE,
    SEQUENTIAL,
    beside,
    caption,
    crop_box,
    fit,
    font,
    framed,
    image_pixels,
    limit,
    map_pixels,
    mosaic,
    signed_pixels,
    upscale,
)  # fmt: skip

__all__ = [
    "DIVERGING", "GREY", "ORANGE", "SEQUENTIAL", "axes_pixels", "beside", "caption", "crop_box", "difference_png",
    "filters", "fit", "font", "framed", "grid", "image_pixels", "limit", "map_pixels", "mosaic", "numbers", "outline",
    "panels", "photo", "projection", "signed_pixels", "style", "upscale",
]  # fmt: skip
