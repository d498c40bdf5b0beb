"""The explorer of occlusion: Figure 7 under a square that the learner moves."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from ..occluder import Occluder
from .panel import Panel


def occlusion(
    net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str = "conv5", fill=0.0
) -> Panel:
    """Figure 7 to play with: sliders for the square's row, column and size; six pictures that follow.

    `image` is one preprocessed (3,H,W) image; `label`, `layer` and `fill` as in `zflib.occlude`. The maps over all
    positions, nine by nine of them, are computed beforehand for each of some fourteen sizes: in a second or two for 56
    pixels, many times that for 224.
    """
    square = Occluder(net, image, label=label, layer=layer, fill=fill)
    height, width = square.image.shape[1:]
    if min(height, width) < 4:
        raise ValueError(f"image must be at least 4x4 pixels, as the smallest square is, got {height}x{width}")
    step = max(4, min(height, width) // 14)
    size, wide = max(step, min(height, width) // 4), widgets.Layout(width="420px")
    sides = list(range(step, min(height, width) + 1, step))
    for side in sides:
        square.maps(side)
    controls = {
        "row": widgets.IntSlider(value=(height - size) // 2, max=height - step, description="row", layout=wide),
        "column": widgets.IntSlider(value=(width - size) // 2, max=width - step, description="column", layout=wide),
        "size": widgets.SelectionSlider(options=sides, value=size - size % step, description="size", layout=wide),
    }

    def draw(row: int, column: int, size: int) -> tuple[np.ndarray, str]:
        row, column = min(row, height - size), min(column, width - size)
        return square.pixels(row, column, size), square.describe(row, column, size)

    return Panel(draw, controls)
