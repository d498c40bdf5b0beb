"""The explorer of correspondence: a part masked in five images, the signs of what changes, the scores."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from ..checks import check_choice, check_net
from ..features import check_layers
from ..masker import Masker
from ..scenes import FRONTAL, scenes
from .panel import Panel

PARTS = ("right eye", "left eye", "nose", "mouth")


def correspondence(
    net: nn.Module, images: torch.Tensor | None = None, positions: Mapping[str, torch.Tensor] | None = None, *,
    layers=("conv1", "conv3", "conv5", "fc7"), size: int | None = None,
) -> Panel:  # fmt: skip
    """Figure 8 to play with: choose the part, the layer and the size of the masks; pictures, signs and scores follow.

    `images` are preprocessed (N,3,H,W), `positions` say where their parts are, (N,2) rows and columns by name; without
    both, five rendered faces. `layers` are those to choose from, the last one is shown first; `size` is the first side
    in pixels, by default a fifth of the image's.
    """
    check_net(net)
    if (images is None) != (positions is None):
        raise ValueError("positions must come with images: (N,2) rows and columns by the name of the part")
    if images is None:
        images, positions = _faces(net)
    layers, masker = check_layers(net, layers), Masker(net, images, positions)
    sides = masker.sizes()
    start = min(sides, key=lambda side: abs(side - min(masker.whole) / 5)) if size is None else size
    check_choice("size", start, sides)
    narrow = widgets.Layout(width="230px")
    controls = {
        "part": widgets.Dropdown(options=masker.parts, description="part", layout=narrow),
        "layer": widgets.Dropdown(options=layers, value=layers[-1], description="layer", layout=narrow),
        "size": widgets.SelectionSlider(
            options=sides, value=start, description="size", layout=widgets.Layout(width="420px")
        ),
    }

    def draw(part: str, layer: str, size: int) -> tuple[np.ndarray, str]:
        return masker.pixels(part, layer, size), masker.describe(part, layer, size)

    return Panel(draw, controls)


def _faces(net: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Five frontal faces as `net` takes them, and where their parts are."""
    if not hasattr(net, "geometry"):
        raise ValueError("images are needed for this network: preprocessed (N,3,H,W), with positions of their parts")
    faces, sizes = scenes(5, classes="face", pose=FRONTAL, size=net.geometry.resize), net.geometry
    margin = (sizes.resize - sizes.crop) // 2
    return net.preprocess(faces.pixels), {part: faces.part(part) - margin for part in PARTS}
