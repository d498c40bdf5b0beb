"""Tensors to pictures: uint8 arrays for panels that must be fast, and matplotlib axes, which only this folder draws."""

from .cells import matrices
from .diagram import machine, machine_steps
from .drops import drop
from .figures import (
    Axes,
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
from .light import calm, energy, lit
from .moving import animated
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
from .sheets import channel_label, encoded, figure2, on_page, poster, projection_tile

__all__ = [
    "Axes", "DIVERGING", "GREY", "ORANGE", "SEQUENTIAL", "animated", "axes_pixels", "beside", "calm", "caption",
    "channel_label", "crop_box", "difference_png", "drop", "encoded", "energy", "figure2", "filters", "fit", "font",
    "framed", "grid", "image_pixels", "limit", "lit", "machine", "machine_steps", "map_pixels", "matrices",
    "mosaic", "numbers", "on_page", "outline", "panels", "photo", "poster", "projection", "projection_tile",
    "signed_pixels", "style", "upscale",
]  # fmt: skip
