"""One image at one layer: every channel's strongest activation, what it saw of the image, and its projection."""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import nn

from . import data, show
from .deconv import Deconvnet, strongest
from .peaks import receptive_field
from .tape import Unsupported

Box = tuple[int, int, int, int]
SIDE = 224  # pixels of each of the four pictures of `activation_pixels`, which is 932 pixels wide


def open_photo(source) -> Image.Image:
    """An RGB image from the name of a shipped photograph ("chelsea") or from whatever `data.open_image` takes."""
    if isinstance(source, str) and source in data.photo_names() and not os.path.exists(source):
        return data.photo(source)
    return data.open_image(source)


class View:
    """One (3,H,W) image, in the units of `net`, seen from `layer` under `rule`: one forward pass, and each projection
    when it is first asked for.

    A bad net, rule, image or layer raises what `Deconvnet` raises: one sentence that names it.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str, *, rule: str = "deconvnet"):
        self.net, self.layer, self.rule = net, layer, rule
        self._deconvnet = Deconvnet(net, rule=rule)
        self._tape = self._deconvnet.record(image[None], layer)
        self._projections: dict[int, torch.Tensor] = {}
        self.image = image
        self.positions = strongest(self._tape.activations)[0]  # (C,2)

    @property
    def activations(self) -> torch.Tensor:
        """(C,h,w) maps, or (C,) for a fully connected layer."""
        return self._tape.activations[0]

    @property
    def spatial(self) -> bool:
        """Whether the layer has maps; a fully connected layer has units without a position."""
        return self.activations.dim() == 3

    @cached_property
    def values(self) -> torch.Tensor:
        """(C,) every channel's strongest activation."""
        return self.activations.flatten(1).amax(dim=1) if self.spatial else self.activations

    def strongest(self, count: int) -> list[int]:
        """The `count` channels with the strongest activations, strongest first."""
        if not 1 <= count <= len(self.values):
            raise ValueError(f"top must be 1 to {len(self.values)}, the channels of layer {self.layer!r}, got {count}")
        return self.values.argsort(descending=True, stable=True)[:count].tolist()

    def check_channel(self, channel: int) -> int:
        """The channel itself; ValueError unless the layer has it."""
        if not 0 <= channel < len(self.values):
            last = len(self.values) - 1
            raise ValueError(f"channel must be 0 to {last}, the channels of layer {self.layer!r}, got {channel}")
        return channel

    def field(self, channel: int) -> Box:
        """(top, left, bottom, right) that the strongest position sees, in pixels, not clipped to the image."""
        if self._grid is None:
            return 0, 0, *self.image.shape[-2:]
        start, step = self._grid
        row, column = self.positions[channel].tolist()
        shift = (row * step[0], column * step[1]) * 2
        return tuple(edge + moved for edge, moved in zip(start, shift))

    def box(self, channel: int) -> Box:
        """As `field`, clipped to the image."""
        top, left, bottom, right = self.field(channel)
        height, width = self.image.shape[-2:]
        return max(0, top), max(0, left), min(height, bottom), min(width, right)

    @cached_property
    def _grid(self) -> tuple[Box, tuple[int, int]] | None:
        """The receptive field at (0, 0) and how far it moves per row and column; None: the whole image."""
        if not self.spatial:
            return None
        size = max(self.image.shape[-2:])
        last = [min(1, side - 1) for side in self.activations.shape[-2:]]
        try:
            start, other = (receptive_field(self.net, self.layer, at, size=size) for at in ((0, 0), last))
        except Unsupported:
            return None
        return start, (other[0] - start[0], other[1] - start[1])

    def projection(self, channel: int) -> torch.Tensor:
        """(3,H,W) the channel's strongest activation projected down to pixels; zeros for a silent channel."""
        if channel not in self._projections:
            self._projections[channel] = self._project(self.check_channel(channel))
        return self._projections[channel]

    def _project(self, channel: int) -> torch.Tensor:
        if not self.values[channel]:
            return torch.zeros_like(self.image)
        channels = torch.tensor([channel], device=self.positions.device)
        return self._deconvnet.descend(self._tape, torch.zeros_like(channels), channels, self.positions[channels])[0]

    def name(self, channel: int) -> str:
        """What to call it: a channel, a unit of a fully connected layer, or the class of the last one."""
        classes = getattr(self.net, "classes", [])
        if self.layer == getattr(self.net, "layer_names", [None])[-1] and len(classes) == len(self.values):
            return f"{classes[channel]} ({channel})"
        return f"{'channel' if self.spatial else 'unit'} {channel}"


def activation_pixels(view: View, channel: int, photo: str) -> np.ndarray:
    """(H,W,3) uint8: photograph with receptive field | map with its strongest place | the field | its projection."""
    box = view.box(channel)
    image = show.image_pixels(view.image, view.net)
    scale = SIDE / max(image.shape[:2])
    whole = show.framed(show.upscale(image, SIDE, smooth=True), box, scale=scale)
    patch = np.ascontiguousarray(image[box[0] : box[2], box[1] : box[3]])
    seen = show.signed_pixels(show.crop_box(view.projection(channel), box))
    side = f"{box[2] - box[0]}×{box[3] - box[1]}"
    titles = [
        f"{photo}, {image.shape[0]}×{image.shape[1]}",
        f"{view.layer}, {view.name(channel)}",
        f"what it saw, {side}",
    ]
    titles.append(f"projection, {side}" if view.values[channel] else "projection: silent, nothing")
    pictures = [show.fit(whole, SIDE), _map(view, channel), *(show.fit(p, SIDE, smooth=True) for p in (patch, seen))]
    return show.beside(pictures, titles)


def _map(view: View, channel: int) -> np.ndarray:
    """The channel's map with its strongest place framed; of a fully connected layer all units, in rows."""
    if view.spatial:
        values, (row, column) = view.activations[channel], view.positions[channel].tolist()
    else:
        width = int(np.ceil(len(view.values) ** 0.5))
        values = nn.functional.pad(view.values, (0, -len(view.values) % width)).view(-1, width)
        row, column = divmod(channel, width)
    pixels = show.upscale(show.map_pixels(values), SIDE)
    framed = show.framed(pixels, (row, column, row + 1, column + 1), scale=SIDE / max(values.shape))
    return show.fit(framed, SIDE)


def describe(view: View, channel: int, photo: str) -> str:
    """The same in words, with the numbers: value, position, receptive field and the strongest channels."""
    name, value = view.name(channel), float(view.values[channel])
    top = ", ".join(view.name(c) if not view.spatial else str(c) for c in view.strongest(min(5, len(view.values))))
    strongest = f"Strongest {'channels ' if view.spatial else ''}here: {top}."
    if not value:
        return f"{photo}: {name} of {view.layer} is silent, its projection is empty. {strongest}"
    if not view.spatial:
        return f"{photo}: {name} of {view.layer} has the value {value:.3g} and sees the whole image. {strongest}"
    row, column = view.positions[channel].tolist()
    (height, width), image = view.activations.shape[-2:], view.image.shape[-2:]
    top, left, bottom, right = view.field(channel)
    return (
        f"{photo}: {name} of {view.layer} is strongest, {value:.3g}, at row {row}, column {column} of its "
        f"{height}×{width} map. It sees rows {top} to {bottom - 1} and columns {left} to {right - 1} of the "
        f"{image[0]}×{image[1]} image. {strongest}"
    )
