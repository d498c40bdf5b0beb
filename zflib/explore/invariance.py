"""The explorer of invariance: Figure 5 for one picture that the learner moves."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from ..mover import Mover
from ..transforms import Move
from .panel import Panel


def invariance(net: nn.Module, image: torch.Tensor, *, label: int | None = None,
               layers: Sequence[str] = ("conv1", "conv3", "conv5", "fc7"), others: torch.Tensor | None = None,
               fill: float | str = 0.0) -> Panel:  # fmt: skip
    """Figure 5 to play with: shift, enlarge and turn a picture; distances and probabilities follow.

    `image` is one preprocessed (3,H,W) image, `label` the class to watch, by default the most probable one; `fill` is
    what comes in, as in `zflib.invariance`. A distance of 1 is as far as the pictures `others` (M,3,H,W) are, by
    default the shipped photographs; for networks that cannot prepare these it is the vector's own length.
    """
    mover = Mover(net, image, label=label, layers=layers, others=others, fill=fill)
    (height, width), wide = mover.image.shape[2:], widgets.Layout(width="420px")

    def slider(name: str, reach: int, start: int = 0) -> widgets.IntSlider:
        return widgets.IntSlider(value=start, min=-reach, max=reach, description=name, layout=wide)

    controls = {
        "down": slider("down", height // 2, height // 14),
        "right": slider("right", width // 2),
        "scale": widgets.FloatSlider(value=1, min=0.5, max=2, step=0.05, description="scale", layout=wide),
        "angle": slider("angle", 180),
    }

    def draw(down: int, right: int, scale: float, angle: int) -> tuple[np.ndarray, str]:
        move = Move(down, right, scale, angle)
        return mover.pixels(move), mover.describe(move)

    return Panel(draw, controls)
