"""The explorer of layers: a photograph, a layer, a channel, a rule; where the channel is strongest, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache

import numpy as np
import torch
from PIL import Image
from torch import nn

from .. import data, show
from .._arguments import check_choice, check_layer, check_net
from ..deconv import RULES, Deconvnet, Unsupported, receptive_fields, strongest
from ..record.hooks import check_layers
from .charts import framed_image, framed_map
from .panels import Panel, menu, slider

Box = tuple[int, int, int, int]
SIDE = 224  # pixels of each of the four pictures of `activation_pixels`, which is 932 pixels wide


def open_photo(source) -> Image.Image:
    """An RGB image from the name of a shipped photograph ("chelsea") or from whatever `data.open_image` takes."""
    if isinstance(source, str) and source in data.photo_names() and not os.path.exists(source):
        return data.photo(source)
    return data.open_image(source)


class View:
    """One (3,H,W) image, in the units of `net`, seen from `layer` under `rule`: one forward pass for all projections.

    A bad net, rule, image or layer raises what `Deconvnet` raises: one sentence that names it.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str, *, rule: str = "deconvnet"):
        self.net, self.layer, self.rule = net, check_layer(net, layer), rule
        self._deconvnet = Deconvnet(net, rule=rule)
        self._tape = self._deconvnet.record(image[None], layer)
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
        return tuple(self._fields[channel].tolist())

    def box(self, channel: int) -> Box:
        """As `field`, clipped to the image."""
        top, left, bottom, right = self.field(channel)
        height, width = self.image.shape[-2:]
        return max(0, top), max(0, left), min(height, bottom), min(width, right)

    @cached_property
    def _fields(self) -> torch.Tensor:
        """(C,4) the receptive field of each channel's strongest position; the whole image where it is not known."""
        height, width = self.image.shape[-2:]
        if self.spatial:
            with suppress(Unsupported):
                return receptive_fields(self.net, self.layer, self.positions, size=(height, width))
        return torch.tensor([0, 0, height, width]).expand(len(self.values), 4)

    def projection(self, channel: int) -> torch.Tensor:
        """(3,H,W) the channel's strongest activation projected down to pixels; zeros for a silent channel."""
        if not self.values[self.check_channel(channel)]:
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
    patch = np.ascontiguousarray(image[box[0] : box[2], box[1] : box[3]])
    seen = show.signed_pixels(show.crop_box(view.projection(channel), box))
    side = f"{box[2] - box[0]}×{box[3] - box[1]}"
    last = f"projection, {side}" if view.values[channel] else "projection: silent, nothing"
    titles = [f"{photo}, {image.shape[0]}×{image.shape[1]}", f"{view.layer}, {view.name(channel)}",
              f"what it saw, {side}", last]  # fmt: skip
    pictures = [framed_image(view.image, view.net, box, SIDE), _map(view, channel),
                show.fit(patch, SIDE, smooth=True), show.fit(seen, SIDE, smooth=True)]  # fmt: skip
    return show.beside(pictures, titles)


def _map(view: View, channel: int) -> np.ndarray:
    """The channel's map with its strongest place framed; of a fully connected layer all units, in rows."""
    if view.spatial:
        values, (row, column) = view.activations[channel], view.positions[channel].tolist()
    else:
        width = int(np.ceil(len(view.values) ** 0.5))
        values = nn.functional.pad(view.values, (0, -len(view.values) % width)).view(-1, width)
        row, column = divmod(channel, width)
    return framed_map(values, row, column, side=SIDE)


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


def layers(
    net: nn.Module, images=None, *, layer: str | None = None, rule: str = "deconvnet", layers=None, preprocess=None
) -> Panel:
    """Explore `net`: choose photograph, layer, channel and rule; see where the channel is strongest, and why.

    `images`: dict name -> image, a list, or None for the shipped photographs; an image is a photograph's name, a path,
    a PIL image, a uint8 array or an already prepared float tensor (3,H,W). For a network that is not ours give
    `preprocess`, from one PIL image to (3,H,W) or (1,3,H,W), and `layers`, the module paths to choose from.
    `layer` is the first one shown, by default the last convolutional one or the last choice. Bad input raises
    ValueError or TypeError.
    """
    check_net(net)
    names = check_layers(net, _layers_of(net) if layers is None else layers)
    layer = layer or next((name for name in reversed(getattr(net, "conv_names", [])) if name in names), names[-1])
    names = list(dict.fromkeys(check_layer(net, layer) for layer in check_layers(net, [*names, layer])))
    layer = check_layer(net, layer)
    check_choice("rule", rule, RULES)
    sources, preprocess = _named(images), preprocess or getattr(net, "preprocess", None)
    read = lru_cache(maxsize=16)(lambda photo: _prepared(sources[photo], preprocess))

    @lru_cache(maxsize=8)  # so that a step of the channel's slider only projects down
    def seen(photo: str, layer: str, rule: str) -> View:
        return View(net, read(photo), layer, rule=rule)

    photo = next(iter(sources))
    first = seen(photo, layer, rule)
    channels = slider("channel", 0, len(first.values) - 1, first.strongest(1)[0])
    menus = {"photo": (sources, photo), "layer": (names, layer), "rule": (RULES, rule)}

    def draw(photo: str, layer: str, rule: str, channel: int) -> tuple[np.ndarray, str]:
        view = seen(photo, layer, rule)
        channels.max = last = len(view.values) - 1
        channel = min(channel, last)
        return activation_pixels(view, channel, photo), describe(view, channel, photo)

    controls = {name: menu(name, values, start) for name, (values, start) in menus.items()}
    return Panel(draw, controls | {"channel": channels})


SEEN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear)  # modules offered as layers of a network that names none


def _layers_of(net: nn.Module) -> list[str]:
    return getattr(net, "layer_names", None) or [p for p, m in net.named_modules() if p and isinstance(m, SEEN)]


def _named(images) -> dict[str, object]:
    """name -> image as it was given; none is opened before it is chosen."""
    images = data.photo_names() if images is None else images
    if isinstance(images, Mapping):
        named = {str(name): image for name, image in images.items()}
    else:
        one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 0) == 3
        images = [images] if one else list(images)
        labels = [_label(image, number) for number, image in enumerate(images, start=1)]
        if len(set(labels)) < len(labels):  # two files of one name in different folders
            labels = [f"{number} {label}" for number, label in enumerate(labels, start=1)]
        named = dict(zip(labels, images))
    if not named:
        raise ValueError("images is empty; give at least one image, or leave it out for the shipped photographs")
    return named


def _label(image, number: int) -> str:
    return os.path.basename(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else f"image {number}"


def _prepared(source, preprocess: Callable | None) -> torch.Tensor:
    """(3,H,W) in the network's units: a float tensor as it is, anything else opened and preprocessed."""
    if isinstance(source, torch.Tensor) and source.is_floating_point():
        return source
    if preprocess is None:
        raise ValueError("preprocess is needed for this network: a function from one PIL image to (3,H,W)")
    image = preprocess(open_photo(source))
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"preprocess must give one tensor (3,H,W) for one PIL image, got {type(image).__name__}")
    return image[0] if image.dim() == 4 else image
