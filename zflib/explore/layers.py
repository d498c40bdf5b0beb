"""The explorer of layers: a photograph, a layer, a channel, a rule; where the channel is strongest, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from .. import data
from ..checks import check_choice, check_layer
from ..deconv import RULES
from ..views import View, activation_pixels, describe, open_photo
from .panel import Panel

SEEN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear)  # modules offered as layers of a network that names none


def layers(
    net: nn.Module, images=None, *, layer: str | None = None, rule: str = "deconvnet", layers=None, preprocess=None
) -> Panel:
    """Explore `net`: choose photograph, layer, channel and rule; see where the channel is strongest, and why.

    `images`: dict name -> image, a list, or None for the shipped photographs; an image is a photograph's name, a path,
    a PIL image, a uint8 array or an already prepared float tensor (3,H,W). For a network that is not ours give
    `preprocess`, from one PIL image to (3,H,W) or (1,3,H,W), and `layers`, the module paths to choose from.
    `layer` is the first one shown, by default conv5 or the last choice. Bad input raises ValueError or TypeError.
    """
    names = _layers_of(net, layers)
    for name in [*names, *([] if layer is None else [layer])]:
        check_layer(net, name)
    check_choice("rule", rule, RULES)
    sources = _named(images)
    explorer = _Explorer(net, sources, preprocess)
    layer = layer or ("conv5" if "conv5" in names else names[-1])
    names = names if layer in names else [*names, layer]
    return explorer.panel(layer, names, rule)


def _layers_of(net: nn.Module, layers) -> list[str]:
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch network (nn.Module), got {type(net).__name__}")
    if isinstance(layers, str):
        raise TypeError(
            f"layers must be a list of layer names, got {layers!r}; use layer= to choose the first one shown"
        )
    names = getattr(net, "layer_names", None) or [
        path for path, m in net.named_modules() if path and isinstance(m, SEEN)
    ]
    names = list(names if layers is None else layers)
    if not names:
        raise ValueError("layers is empty; give at least one module path of net.named_modules()")
    return names


def _named(images) -> dict[str, object]:
    """name -> image as it was given; none is opened before it is chosen."""
    if images is None:
        images = data.photo_names()
    if isinstance(images, Mapping):
        named = {str(name): image for name, image in images.items()}
    else:
        one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 0) == 3
        images = [images] if one else list(images)
        named = {_label(image, i): image for i, image in enumerate(images, start=1)}
        if len(named) < len(images):  # two files of one name in different folders
            named = {f"{i} {_label(image, i)}": image for i, image in enumerate(images, start=1)}
    if not named:
        raise ValueError("images is empty; give at least one image, or leave it out for the shipped photographs")
    return named


def _label(image, number: int) -> str:
    return os.path.basename(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else f"image {number}"


class _Explorer:
    """Draws what `layers` shows; keeps the last few forward passes, so that a step of the slider only walks down."""

    def __init__(self, net: nn.Module, sources: dict[str, object], preprocess: Callable | None):
        if preprocess is None and not hasattr(net, "preprocess"):
            raise ValueError("preprocess is needed for this network: a function from one PIL image to (3,H,W)")
        self.net, self.sources, self.preprocess = net, sources, preprocess or net.preprocess
        self.image = lru_cache(maxsize=16)(self._image)
        self.view = lru_cache(maxsize=8)(self._view)
        self.channel = widgets.IntSlider(description="channel", layout=widgets.Layout(width="420px"))

    def panel(self, layer: str, names: list[str], rule: str) -> Panel:
        first = self.view(next(iter(self.sources)), layer, rule)
        self.channel.max = len(first.values) - 1
        self.channel.value = first.strongest(1)[0]
        narrow = widgets.Layout(width="230px")
        menus = {"photo": (self.sources, None), "layer": (names, layer), "rule": (RULES, rule)}
        controls = {
            name: widgets.Dropdown(
                options=list(options), value=value or next(iter(options)), description=name, layout=narrow
            )
            for name, (options, value) in menus.items()
        }
        return Panel(self.draw, controls | {"channel": self.channel})

    def draw(self, photo: str, layer: str, rule: str, channel: int) -> tuple[np.ndarray, str]:
        view = self.view(photo, layer, rule)
        self.channel.max = len(view.values) - 1
        channel = min(channel, self.channel.max)
        return activation_pixels(view, channel, photo), describe(view, channel, photo)

    def _view(self, photo: str, layer: str, rule: str) -> View:
        return View(self.net, self.image(photo), layer, rule=rule)

    def _image(self, photo: str) -> torch.Tensor:
        source = self.sources[photo]
        if isinstance(source, torch.Tensor) and source.is_floating_point():
            return source
        image = self.preprocess(open_photo(source))
        image = image[0] if isinstance(image, torch.Tensor) and image.dim() == 4 and len(image) == 1 else image
        if not isinstance(image, torch.Tensor) or image.dim() != 3:
            what = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
            raise ValueError(f"preprocess must give one tensor (3,H,W) for one PIL image, got {what}")
        return image
