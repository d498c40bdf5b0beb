"""The explorer of units: Figure 2 for every channel of every layer."""

from __future__ import annotations

import numpy as np
from torch import nn

from .._arguments import check_choice, check_layer, check_net
from ..data import windows
from ..studies.units import Units, describe_unit, unit_pixels
from .panels import Panel, list_slider, slider


def units(net: nn.Module, images=None, *, layers=None, layer: str | None = None, **found) -> Panel:
    """Figure 2 for every channel: sliders for layer and channel; nine projections, nine patches, the map, the classes.

    `images`: a folder of yours, a tensor, an array or a data set, as `find_peaks` takes them; None: windows of the
    shipped photographs. They are searched first, which takes seconds, unless `peaks` of an earlier search or a
    gallery's are given. `labels` (N,) say the classes (indices into net.classes, or `classes`); `preprocess` and
    `layers` are for networks that are not ours. `layer` is the first one shown, by default the last. Bad input raises
    ValueError or TypeError.
    """
    check_net(net)
    pixels = windows(side=net.geometry.resize).pixels if images is None and hasattr(net, "geometry") else images
    known = Units(net, pixels, layers=layers, **found)
    start = check_layer(net, layer) if isinstance(layer, nn.Module) else layer or known.layers[-1]
    check_choice("layer", start, known.layers)
    channels = slider("channel", 0, known.channels(start) - 1, 0)

    def draw(layer: str, channel: int) -> tuple[np.ndarray, str]:
        channels.max = last = known.channels(layer) - 1
        unit = known.unit(layer, min(channel, last))
        return unit_pixels(unit), describe_unit(unit, known.names(unit))

    return Panel(draw, {"layer": list_slider("layer", known.layers, start), "channel": channels})
