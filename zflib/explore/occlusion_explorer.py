"""The explorer of occlusion: Figure 7 under a square that the learner moves."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn

from .. import show
from .._arguments import check_image, check_layer, conv_layers, probabilities
from ..deconv import Deconvnet
from ..experiments.occluders import masked
from ..experiments.occlusion import OcclusionMaps, occlude
from ..record import watched
from ..studies.units import projection_pixels
from .charts import SIDE, class_bars, class_name, framed_image, framed_map
from .panels import Panel, list_slider, slider


class Occluder:
    """A (3,H,W) image under a square: `maps(size)` over all positions, `at(row, column, size)` at one. Section 4.2.

    `label` is the class to watch, by default the most probable one; the maps have about `places` by `places` positions.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str | None = None,
                 fill=0.0, places: int = 9):  # fmt: skip
        layer = conv_layers(net)[-1] if layer is None else layer
        self.net, self.image, self.layer, self.fill = net, check_image(image, net), check_layer(net, layer), fill
        self.label, self.places, self._deconvnet = label, places, Deconvnet(net)
        self.maps, self.at = lru_cache(maxsize=64)(self._maps), lru_cache(maxsize=4)(self._at)
        first = self.maps(max(1, min(self.image.shape[1:]) // 4))
        self.label, self.channel = first.label, first.channel

    def stride(self, size: int) -> int:
        """Pixels between two positions of the maps for this size."""
        return max(1, -(-(min(self.image.shape[1:]) - size) // (self.places - 1)))

    def _maps(self, size: int) -> OcclusionMaps:
        return occlude(self.net, self.image, size=size, stride=self.stride(size), label=self.label, layer=self.layer,
                       fill=self.fill)  # fmt: skip

    def inside(self, row: int, column: int, size: int) -> tuple[int, int]:
        """The nearest position at which the square lies inside the image."""
        height, width = self.image.shape[1:]
        return max(0, min(row, height - size)), max(0, min(column, width - size))

    def covered(self, row: int, column: int, size: int) -> torch.Tensor:
        """(3,H,W): the image with the square's top left pixel at (row, column), kept inside."""
        row, column = self.inside(row, column, size)
        return masked(self.image[None], [[row, column, row + size, column + size]], fill=self.fill)[0]

    def _at(self, row: int, column: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(the covered image, (classes,) probabilities, (h,w) the strongest map, (3,H,W) its projection).

        A unit of a fully connected layer is a map of 1x1.
        """
        image = self.covered(row, column, size)
        with watched(self.net, [self.layer]) as look:
            found, scores = look(image[None])
        projection = self._deconvnet.project(image[None], self.layer, self.channel)[0]
        return image, probabilities(scores)[0], torch.atleast_2d(found[self.layer][0, self.channel]), projection

    def pixels(self, row: int, column: int, size: int) -> np.ndarray:
        """(H,W,3) uint8, six pictures: Figure 7 with the classes as bars, the two maps with a frame at this place."""
        image, probabilities, activation_map, projection = self.at(row, column, size)
        maps, name = self.maps(size), f"{self.layer} channel {self.channel}"
        first = show.beside(
            [framed_image(image, self.net, (row, column, row + size, column + size)),
             class_bars(probabilities, self.net, self.label),
             show.fit(show.map_pixels(activation_map, full=self._full), SIDE)],
            ["the image, covered", "the most probable classes", f"{name}: its map"],
        )  # fmt: skip
        most = max(maps.before[0], float(maps.probability.max()))
        place = [min(round(edge / self.stride(size)), n - 1) for edge, n in zip((row, column), maps.activity.shape)]
        second = show.beside(
            [projection_pixels(projection, SIDE),
             framed_map(maps.activity, *place, full=maps.before[1]),
             framed_map(maps.probability, *place, full=most)],
            [f"{name}, projected", "its activity, by place", f"p({class_name(self.net, self.label)}), by place"],
        )  # fmt: skip
        return np.concatenate([first, np.full((10, first.shape[1], 3), 255, np.uint8), second])

    @cached_property
    def _full(self) -> float:
        """What is drawn brightest: the map's maximum without a square."""
        return float(self._deconvnet.activations(self.image[None], self.layer)[0, self.channel].max()) or 1.0

    def describe(self, row: int, column: int, size: int) -> str:
        """The same in words, with the numbers."""
        _, probabilities, activation_map, _ = self.at(row, column, size)
        label, likeliest = (class_name(self.net, index) for index in (self.label, int(probabilities.argmax())))
        (before, activity), after = self.maps(size).before, float(probabilities[self.label])
        return (
            f"A square of {size}×{size} at row {row}, column {column}: p({label}) goes from {before:.2f} to "
            f"{after:.2f}, the most probable class is {likeliest}; the map's sum goes from {activity:.3g} to "
            f"{float(activation_map.sum()):.3g}."
        )


def occlusion(
    net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str | None = None, fill=0.0
) -> Panel:
    """Figure 7 to play with: sliders for the square's row, column and size; six pictures that follow.

    `image` is one preprocessed (3,H,W) image; `label`, `layer` and `fill` as in `zflib.occlude`. The maps over all
    positions, nine by nine of them, are computed beforehand for each of some fourteen sizes: in a second or two for 56
    pixels, many times that for 224.
    """
    square = Occluder(net, image, label=label, layer=layer, fill=fill)
    height, width = square.image.shape[1:]
    step = max(4, min(height, width) // 14)
    size, sides = max(step, min(height, width) // 4), list(range(step, min(height, width) + 1, step))
    for side in sides:
        square.maps(side)
    controls = {
        "row": slider("row", 0, height - step, (height - size) // 2),
        "column": slider("column", 0, width - step, (width - size) // 2),
        "size": list_slider("size", sides, size - size % step),
    }

    def draw(row: int, column: int, size: int) -> tuple[np.ndarray, str]:
        row, column = square.inside(row, column, size)
        return square.pixels(row, column, size), square.describe(row, column, size)

    return Panel(draw, controls)
