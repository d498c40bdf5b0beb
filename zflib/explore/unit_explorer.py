"""The explorer of units: Figure 2 for every channel of every layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from .._arguments import check_choice, check_layer, check_net
from ..data import windows
from ..studies.units import COLUMNS, VIEWS, Unit, Units, describe_unit, locate, unit_pixels
from .ahead import Ahead
from .panels import Panel, list_slider, slider, toggle


def units(
    net: nn.Module, images=None, *, unit: str | None = None, layers=None, layer: str | None = None, view: str = "calm",
    **found,
) -> Panel:  # fmt: skip
    """Figure 2 for every channel: its six strongest images with its map and field, the patches, the projections.

    `images`: a folder of yours, a tensor, an array or a data set, as `find_peaks` takes them; None: windows of the
    shipped photographs. They are searched first, which takes seconds, unless `peaks` of an earlier search or a
    gallery's are given. `labels` (N,) say the classes (indices into net.classes, or `classes`); `preprocess` and
    `layers` are for networks that are not ours. `unit` is the first one shown, an address like "conv5:173"; or `layer`
    says only its layer, by default the last. `view`: how projections are drawn first, "raw", "calm", "lit" or "grey".
    Of a network without a way down there are none, and the words say why. Bad input raises ValueError or TypeError.
    """
    check_net(net)
    check_choice("view", view, VIEWS)
    known = Units(net, window_pixels(net, images), layers=layers, **found)
    start, first = first_shown(net, known.counts, unit, layer)
    ready = Ahead(lambda *shown: drawn(known, *shown))
    channels = slider("channel", 0, known.channels(start) - 1, first)

    def draw(layer: str, channel: int, view: str) -> tuple[np.ndarray, str]:
        channels.max = last = known.channels(layer) - 1
        channel = min(channel, last)
        picture = ready(layer, channel, view)
        ready.prepare((layer, near, view) for near in (channel + 1, channel - 1, channel + 2) if 0 <= near <= last)
        return picture

    layers = list_slider("layer", known.layers, start)
    return Panel(draw, {"layer": layers, "channel": channels, "view": toggle("view", VIEWS, view)})


def drawn(known: Units, layer: str, channel: int, view: str) -> tuple[np.ndarray, str]:
    """The picture of a unit, as `view` says, and the same in words."""
    unit = looked_at(known, layer, channel, COLUMNS)
    return unit_pixels(unit, view), describe_unit(unit, known.names(unit))


def window_pixels(net: nn.Module, images):
    """The images themselves, or windows of the shipped photographs for a network that can take them."""
    return windows(side=net.geometry.resize).pixels if images is None and hasattr(net, "geometry") else images


def first_shown(net: nn.Module, counts: Mapping[str, int], unit: str | None, layer) -> tuple[str, int]:
    """Layer and channel to begin with: those of the address, or the first channel of the layer, by default the last."""
    if unit is not None:
        return locate(unit, counts)
    start = check_layer(net, layer) if isinstance(layer, nn.Module) else layer or list(counts)[-1]
    check_choice("layer", start, counts)
    return start, 0


def looked_at(known: Units, layer: str, channel: int, count: int) -> Unit:
    """The unit with its `count` strongest images, projected if there is a way down: what takes long is done."""
    unit = known.unit(layer, channel, count)
    _ = unit.refused
    return unit
