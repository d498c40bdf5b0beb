"""The explorer of occlusion: Figure 7 under a square that the learner moves."""

from __future__ import annotations

from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from .._arguments import check_image, check_integer
from ..deconv import Deconvnet, strongest
from ..experiments.occluders import blocks
from ..experiments.occlusion import OcclusionMaps, occlude
from ..record.hooks import plain, unchanged
from .panels import Panel

SIDE = 176  # pixels of each of the six pictures
TOP = 5  # classes in the bars


class Occluder:
    """A (3,H,W) image under a square: `maps(size)` over all positions, `at(row, column, size)` at one. Section 4.2.

    `label` is the class to watch, by default the most probable one; the maps have about `places` by `places` positions.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str = "conv5",
                 fill=0.0, places: int = 9):  # fmt: skip
        self.net, self.image, self.layer, self.fill = net, check_image(image, net), layer, fill
        self.places = check_integer("places", places, "a number of positions, at least 2", low=2)
        self.label, self._deconvnet = label, Deconvnet(net)
        self.maps, self.at = lru_cache(maxsize=64)(self._maps), lru_cache(maxsize=4)(self._at)
        first = self.maps(max(1, min(self.image.shape[1:]) // 4))
        self.label, self.channel = first.label, first.channel
        self.classes = getattr(net, "classes", None) or [f"class {i}" for i in range(10_000)]

    def stride(self, size: int) -> int:
        """Pixels between two positions of the maps for this size."""
        return max(1, -(-(min(self.image.shape[1:]) - size) // (self.places - 1)))

    def _maps(self, size: int) -> OcclusionMaps:
        return occlude(self.net, self.image, size=size, stride=self.stride(size), label=self.label, layer=self.layer,
                       fill=self.fill)  # fmt: skip

    def covered(self, row: int, column: int, size: int) -> torch.Tensor:
        """(3,H,W): the image with the square's top left pixel at (row, column), kept inside."""
        row, column = (max(0, min(place, side - size)) for place, side in zip((row, column), self.image.shape[1:]))
        image = self.image.clone()
        block = blocks(image, torch.tensor([[row, column]]), (size, size), self.fill)[0]
        image[:, row : row + size, column : column + size] = block
        return image

    def _at(self, row: int, column: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(the covered image, (classes,) probabilities, (h,w) the strongest map, (3,H,W) its projection).

        A unit of a fully connected layer is a map of 1x1.
        """
        image = self.covered(row, column, size)
        tape = self._deconvnet.record(image[None], self.layer)
        with unchanged(self.net), plain(image.device):
            probabilities = self.net(image[None].clone())[0].softmax(-1)  # a network may work in place
        chosen = torch.tensor([self.channel], device=image.device)
        places = strongest(tape.activations)[0, chosen]
        projection = self._deconvnet.descend(tape, torch.zeros_like(chosen), chosen, places)[0]
        return image, probabilities, torch.atleast_2d(tape.activations[0, self.channel]), projection

    def pixels(self, row: int, column: int, size: int) -> np.ndarray:
        """(H,W,3) uint8, six pictures: Figure 7 with the classes as bars, the two maps with a frame at this place."""
        row, column = (max(0, min(place, side - size)) for place, side in zip((row, column), self.image.shape[1:]))
        image, probabilities, activation_map, projection = self.at(row, column, size)
        maps = self.maps(size)
        whole = show.framed(show.upscale(show.image_pixels(image, self.net), SIDE, smooth=True),
                            (row, column, row + size, column + size), scale=SIDE / max(image.shape[1:]))  # fmt: skip
        top = [show.fit(whole, SIDE), bars(probabilities, self.classes, self.label),
               show.fit(show.map_pixels(activation_map, full=self._full), SIDE)]  # fmt: skip
        most = max(maps.before[0], float(maps.probability.max()))
        below = [show.fit(show.signed_pixels(projection, full=show.limit(projection, 99)), SIDE, smooth=True),
                 self._whole(maps.activity, (row, column), self.stride(size), maps.before[1]),
                 self._whole(maps.probability, (row, column), self.stride(size), most)]  # fmt: skip
        name = f"{self.layer} channel {self.channel}"
        first = show.beside(top, ["the image, covered", "the most probable classes", f"{name}: its map"])
        titles = [f"{name}, projected", "its activity, by place", f"p({self.classes[self.label]}), by place"]
        second = show.beside(below, titles)
        return np.concatenate([first, np.full((10, first.shape[1], 3), 255, np.uint8), second])

    @cached_property
    def _full(self) -> float:
        """What is drawn brightest: the map's maximum without a square."""
        return float(self._deconvnet.activations(self.image[None], self.layer)[0, self.channel].max()) or 1.0

    def _whole(self, values: torch.Tensor, corner: tuple[int, int], stride: int, full: float) -> np.ndarray:
        """One map over all positions, the square's own place framed."""
        pixels = show.upscale(show.map_pixels(values, full=full), SIDE)
        place = [min(round(p / stride), n - 1) for p, n in zip(corner, values.shape)]
        box = (*place, place[0] + 1, place[1] + 1)
        return show.fit(show.framed(pixels, box, scale=SIDE / max(values.shape)), SIDE)

    def describe(self, row: int, column: int, size: int) -> str:
        """The same in words, with the numbers."""
        _, probabilities, activation_map, _ = self.at(row, column, size)
        before, after = self.maps(size).before[0], float(probabilities[self.label])
        guess = self.classes[int(probabilities.argmax())]
        return (
            f"A square of {size}×{size} at row {row}, column {column}: p({self.classes[self.label]}) goes from "
            f"{before:.2f} to {after:.2f}, the most probable class is {guess}; the map's sum goes from "
            f"{self.maps(size).before[1]:.3g} to {float(activation_map.sum()):.3g}."
        )


def bars(probabilities: torch.Tensor, classes, label: int) -> np.ndarray:
    """(SIDE,SIDE,3) uint8: the most probable classes as bars, the watched one in orange; their full length is 1."""
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    draw, step = ImageDraw.Draw(sheet), SIDE // TOP
    for number, index in enumerate(probabilities.argsort(descending=True, stable=True)[:TOP].tolist()):
        top, value = number * step, float(probabilities[index])
        colour = show.ORANGE if index == label else "#9aa5b1"
        draw.rectangle((0, top + 17, max(1, round(value * (SIDE - 1))), top + step - 6), fill=colour)
        draw.text((0, top + 1), f"{classes[index]} {value:.2f}", fill="black", font=show.font(12))
    return np.asarray(sheet)


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
