"""The explorer of invariance: Figure 5 for one picture that the learner moves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import ImageDraw
from torch import nn

from .. import data, show
from .._arguments import check_image, check_images, check_label, check_layer, probabilities, spread_layers
from ..data.photo_windows import SHOWN
from ..experiments.transforms import Move, check_fill, moved
from ..record.hooks import check_layers, watched
from .charts import QUIET, SIDE, bars, class_bars, class_name
from .panels import Panel, slider

PICTURE = 224  # pixels of the picture
FULL = 1.5  # where the bars of the distances end
ROW = 27  # pixels of a bar and the words above it, at least


class Mover:
    """A (3,H,W) image, moved by `at(move)`; what it does to each layer and to p(`label`). Section 4.

    `label`: the class to watch, by default the most probable one. Distances are measured against the root mean squared
    distance to `others` (M,3,H,W), by default the shipped photographs; for a network that cannot prepare these, against
    the length of the layer's own vector.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, *, label: int | None = None,
                 layers: Sequence[str] | None = None, others: torch.Tensor | None = None,
                 fill: float | str = 0.0):  # fmt: skip
        layers = spread_layers(net) if layers is None else layers
        self.net, self.layers = net, [check_layer(net, layer) for layer in check_layers(net, layers)]
        self.image, self.fill = check_image(image, net)[None], fill
        check_fill(fill)
        self.at = lru_cache(maxsize=8)(self._at)
        self.before, chances = self._look(self.image)
        self.chances = chances[0]
        self.label = int(self.chances.argmax()) if label is None else check_label(label, len(self.chances))
        self.yardstick, self.unit = self._measure(others)

    def _look(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        with watched(self.net, self.layers) as look:
            found, scores = look(images)
        return {layer: values.flatten(1) for layer, values in found.items()}, probabilities(scores)

    def _measure(self, others: torch.Tensor | None) -> tuple[dict[str, float], str]:
        """What a distance of 1 is, by layer, and in words."""
        if others is None and not hasattr(self.net, "preprocess"):
            return {layer: float(v.norm()) or 1.0 for layer, v in self.before.items()}, "their own length"
        if others is None:
            names = [name for name in SHOWN if name in data.photo_names()]
            others = self.net.preprocess([data.photo(name) for name in names])
        others = check_images(others, self.net)
        others = others[(others != self.image).flatten(1).any(dim=1)]  # the picture itself may be among them
        found, _ = self._look(others)
        squares = {layer: (v - self.before[layer]).square().sum(dim=1).mean() for layer, v in found.items()}
        return {layer: float(s.sqrt()) or 1.0 for layer, s in squares.items()}, "the distance to another picture"

    def _at(self, move: Move) -> tuple[torch.Tensor, dict[str, float], torch.Tensor]:
        """((3,H,W) the moved image, {layer: its distance over the yardstick}, (classes,) probabilities)."""
        image = moved(self.image, move, fill=self.fill)
        after, chances = self._look(image)
        distance = {k: float((after[k] - self.before[k]).norm()) / self.yardstick[k] for k in self.layers}
        return image[0], distance, chances[0]

    def pixels(self, move: Move) -> np.ndarray:
        """(H,W,3) uint8: the moved image, the distances and the most probable classes side by side."""
        image, distance, chances = self.at(move)
        picture = show.fit(show.image_pixels(image, self.net), PICTURE, smooth=True)
        pictures = [picture, distance_bars(distance), class_bars(chances, self.net, self.label)]
        return show.beside(pictures, ["the picture, moved", "how far the features went", "the most probable classes"])

    def describe(self, move: Move) -> str:
        """The same in words, with the numbers."""
        _, distance, chances = self.at(move)
        how = (
            f"{move.down:g} px down, {move.right:g} px right, {move.scale:g} times as large, turned by {move.angle:g}°"
        )
        far = ", ".join(f"{layer} {value:.2f}" for layer, value in distance.items())
        label, likeliest = (class_name(self.net, index) for index in (self.label, int(chances.argmax())))
        return (
            f"{how}: in units of {self.unit}, {far}; p({label}) goes from {float(self.chances[self.label]):.2f} to "
            f"{float(chances[self.label]):.2f}, the most probable class is {likeliest}."
        )


def distance_bars(distance: dict[str, float]) -> np.ndarray:
    """(SIDE,SIDE,3) uint8: a bar for each layer, a line where the distance is 1; longer ones end at FULL.

    Of more layers than fit below each other the sheet is higher.
    """
    rows = [(f"{layer} {value:.2f}", round(min(value, FULL) / FULL * (SIDE - 1)), QUIET)
            for layer, value in distance.items()]  # fmt: skip
    sheet, one = bars(rows, step=max(SIDE // max(5, len(distance)), ROW)), round((SIDE - 1) / FULL)
    ImageDraw.Draw(sheet).line((one, 0, one, sheet.height), fill=show.ORANGE, width=2)
    return np.asarray(sheet)


def invariance(net: nn.Module, image: torch.Tensor, *, label: int | None = None,
               layers: Sequence[str] | None = None, others: torch.Tensor | None = None,
               fill: float | str = 0.0) -> Panel:  # fmt: skip
    """Figure 5 to play with: shift, enlarge and turn a picture; distances and probabilities follow.

    `image` is one preprocessed (3,H,W) image, `label` the class to watch, by default the most probable one; `layers`
    are by default four such as conv1, conv3, conv5 and fc7; `fill` is what comes in, as in `zflib.invariance`. A
    distance of 1 is as far as the pictures `others` (M,3,H,W) are, by default the shipped photographs; for networks
    that cannot prepare these it is the vector's own length.
    """
    mover = Mover(net, image, label=label, layers=layers, others=others, fill=fill)
    height, width = mover.image.shape[2:]
    controls = {
        "down": slider("down", -(height // 2), height // 2, height // 14),
        "right": slider("right", -(width // 2), width // 2, 0),
        "scale": slider("scale", 0.5, 2, 1, step=0.05),
        "angle": slider("angle", -180, 180, 0),
    }

    def draw(down: int, right: int, scale: float, angle: int) -> tuple[np.ndarray, str]:
        move = Move(down, right, scale, angle)
        return mover.pixels(move), mover.describe(move)

    return Panel(draw, controls)
