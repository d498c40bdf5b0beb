"""The explorer of occlusion: Figure 7 under a square that the learner drags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn

from .. import show
from .._arguments import check_choice, check_layer, conv_layers
from ..deconv import strongest
from ..experiments.occluders import masked
from ..experiments.occlusion import OcclusionMaps, occlude
from ..record.endings import ending, probabilities
from ..record.inputs import check_image
from ..studies.units import VIEWS, projection_pixels
from ..studies.way_down import WayDown
from .charts import GAP, ROW, SIDE, STRIP, class_bars, class_name, framed_image, place, row_and_column, rows_of
from .gradually import Gradually
from .panels import Panel, list_slider, slider, toggle
from .upload import Upload

#: Positions of a square across the image: first a map with few of them, then one with all. Both cover the whole image;
#: no region is chosen for the second.
COARSE, FINE = 5, 9


class Occluder:
    """A (3,H,W) image under a square: `maps(size)` over all positions, `at(row, column, size)` at one. Section 4.2.

    `label` is the class to watch, by default the most probable one; the maps have about `places` by `places` positions.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str | None = None,
                 fill=0.0, places: int = FINE):  # fmt: skip
        layer = conv_layers(net)[-1] if layer is None else layer
        self.net, self.image, self.layer, self.fill = net, check_image(image, net), check_layer(net, layer), fill
        self.label, self.places, self._way = label, places, WayDown(net)
        self.sizes = range(self.step, min(self.image.shape[1:]) + 1, self.step)
        self._measured = lru_cache(maxsize=128)(self._measure)
        self.at, self._lost = lru_cache(maxsize=4)(self._at), lru_cache(maxsize=32)(self._lost_pixels)
        self.ending = ending(net, self.image[None])
        first = self.maps(self.start)
        self.label, self.channel = first.label, first.channel

    @property
    def step(self) -> int:
        """Pixels between two sizes, and the smallest size: some fourteen of them."""
        return max(4, min(self.image.shape[1:]) // 14)

    @property
    def start(self) -> int:
        """The size to begin with: about a quarter of the image."""
        size = max(self.step, min(self.image.shape[1:]) // 4)
        return min(size - size % self.step, min(self.image.shape[1:]))

    def stride(self, size: int, places: int | None = None) -> int:
        """Pixels between two positions of the maps for this size."""
        return max(1, -(-(min(self.image.shape[1:]) - size) // ((places or self.places) - 1)))

    def maps(self, size: int, places: int | None = None) -> OcclusionMaps:
        """What a square of this size does at each of its positions; measured once."""
        return self._measured(size, places or self.places)

    def _measure(self, size: int, places: int) -> OcclusionMaps:
        return occlude(self.net, self.image, size=size, stride=self.stride(size, places), label=self.label,
                       layer=self.layer, fill=self.fill)  # fmt: skip

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

        One forward pass. A unit of a fully connected layer is a map of 1x1. Without a way down the projection is 0.
        """
        image = self.covered(row, column, size)
        tape = self._way.record(image[None], self.layer, whole=True)
        channels = tape.activations.new_tensor([self.channel], dtype=torch.long)
        positions = strongest(tape.activations)[0, channels]
        projection = self._way.descend(tape, torch.zeros_like(channels), channels, positions)
        projection = torch.zeros_like(image) if projection is None else projection[0]
        activation_map = torch.atleast_2d(tape.activations[0, self.channel])
        return image, probabilities(tape.scores, self.ending)[0], activation_map, projection

    def pixels(self, row: int, column: int, size: int, *, view: str = "raw", places: int | None = None) -> np.ndarray:
        """(H,W,3) uint8, six pictures: Figure 7 with the classes as bars, and what is lost with a frame at this place.

        `view` is one of `studies.units.VIEWS`; `places` says which maps are shown, 0 if none is measured yet.
        """
        image, chances, activation_map, projection = self.at(row, column, size)
        box, places = (row, column, row + size, column + size), self.places if places is None else places
        patch = show.image_pixels(image, self.net)
        name, (before, activity) = class_name(self.net, self.label, most=18), self.maps(self.start).before
        first = [framed_image(image, self.net, box), self._framed("probability", size, places, box),
                 class_bars(chances, self.net, self.label)]  # fmt: skip
        second = [projection_pixels(projection, SIDE, view=view, patch=patch),
                  show.fit(show.map_pixels(activation_map, full=self._full), SIDE),
                  self._framed("activity", size, places, box)]  # fmt: skip
        projected = "projection: refused" if self._way.refused else f"projected, {view}"
        waits = "" if places else ": being measured"
        titles = [["the image, covered", f"p({name}) lost{waits or f', dark red: {before:.2f}'}",
                   "the most probable classes"],
                  [f"{self.layer} channel {self.channel}, {projected}", "its map",
                   f"its activity lost{waits or f', dark red: {activity:.3g}'}"]]  # fmt: skip
        return rows_of([first, second], titles)

    def _framed(self, what: str, size: int, places: int, box) -> np.ndarray:
        pixels = self._lost(what, size, places) if places else self._lost("", 1, 0)
        return show.fit(show.framed(pixels, box, scale=SIDE / max(self.image.shape[1:])), SIDE)

    def _lost_pixels(self, what: str, size: int, places: int) -> np.ndarray:
        """(h,w,3) uint8: what is lost by place, white to red over the pale image; without maps the pale image."""
        image, corners, full = show.image_pixels(self.image, self.net), torch.zeros(1, 1, 2, dtype=torch.long), 1.0
        lost = torch.zeros(1, 1)
        if places:
            maps = self.maps(size, places)
            full = maps.before[what == "activity"] or 1.0
            lost, corners = full - getattr(maps, what), maps.corners
        return show.upscale(show.drop_pixels(image, lost, corners=corners, size=size, full=full), SIDE, smooth=True)

    @cached_property
    def _full(self) -> float:
        """What is drawn brightest: the map's maximum without a square."""
        return float(self._way.record(self.image[None], self.layer).activations[0, self.channel].max()) or 1.0

    def describe(self, row: int, column: int, size: int) -> str:
        """The same in words, with the numbers."""
        _, chances, activation_map, _ = self.at(row, column, size)
        label, likeliest = (class_name(self.net, index) for index in (self.label, int(chances.argmax())))
        (before, activity), after = self.maps(self.start).before, float(chances[self.label])
        refused = f" No projection: {self._way.refused}." if self._way.refused else ""
        return (
            f"A square of {size}×{size} at row {row}, column {column}: p({label}) goes from {before:.2f} to "
            f"{after:.2f}, the most probable class is {likeliest}; the map's sum goes from {activity:.3g} to "
            f"{float(activation_map.sum()):.3g}.{refused}"
        )


def occlusion(
    net: nn.Module, image: torch.Tensor, *, label: int | None = None, layer: str | None = None, fill=0.0,
    view: str = "calm", preprocess: Callable | None = None,
) -> Panel:  # fmt: skip
    """Figure 7 to play with: drag the square in the image, or move sliders for its row, column and size.

    `image` is one preprocessed (3,H,W) image; `label`, `layer` and `fill` as in `zflib.occlude`. `view` is how the
    projection is drawn first: "raw", "calm", "lit" or "grey". The maps over all positions, nine by nine, are measured
    beforehand for the first size and appear a little later for another one, coarse ones first. A photograph of yours
    can be loaded in the panel; for a network that is not ours give `preprocess`, from one PIL image to (3,H,W). Of a
    network without a way down everything but the projection is shown, and the words say why.
    """
    check_choice("view", view, VIEWS)
    desk = Desk(net, image, layer=layer, fill=fill, label=label)
    height, width = desk.square.image.shape[1:]
    step, size = desk.square.step, desk.square.start
    controls = {
        "row": slider("row", 0, height - step, (height - size) // 2),
        "column": slider("column", 0, width - step, (width - size) // 2),
        "size": list_slider("size", desk.square.sizes, size),
        "view": toggle("view", VIEWS, view),
    }
    preprocess = preprocess or getattr(net, "preprocess", None)
    if preprocess:
        desk.upload = Upload(preprocess)
        controls["own"] = desk.upload.control
    desk.panel = Panel(desk.draw, controls, pointer=desk.point)
    return desk.panel


class Desk:
    """What lies under the panel: the image that is looked at now, and its maps as far as they are measured."""

    def __init__(self, net: nn.Module, image: torch.Tensor, **settings):
        self.net, self.settings, self.panel, self.upload = net, settings, None, None
        self._look_at(image, **settings)

    def _look_at(self, image: torch.Tensor, **settings) -> None:
        self.square = Occluder(self.net, image, **settings)
        self.measuring = Gradually(self._measured, lambda: self.panel.redraw())
        self.measuring.at_once(self.square.start)

    def _measured(self, size: int) -> Iterator[int]:
        """How many places the maps of this size have that are measured: few, then all."""
        for places in (COARSE, self.square.places) if size != self.square.start else (self.square.places,):
            self.square.maps(size, places)
            yield places

    def draw(self, row: int, column: int, size: int, view: str, own=()) -> tuple[np.ndarray, str]:
        """The picture and its words; a photograph that has just been loaded is looked at from now on."""
        if self.upload and (loaded := self.upload.new(own)) is not None:
            self._look_at(loaded, **self.settings | {"label": None})  # its own most probable class
        row, column = self.square.inside(row, column, size)
        pixels = self.square.pixels(row, column, size, view=view, places=self.measuring(size) or 0)
        return pixels, self.square.describe(row, column, size)

    def point(self, x: int, y: int, start: tuple[int, int]) -> dict:
        """Where the pointer puts the square's middle: in any of the pictures, for all of them show the image's places.

        Only the bars show none.
        """
        below, across = row_and_column(*start)
        if (below, across) == (0, 2):
            return {}
        x, y = x - across * (SIDE + GAP), y - below * ROW - STRIP
        row, column = place(x, y, self.square.image.shape[1:], side=SIDE)
        size = self.panel.controls["size"].value
        row, column = self.square.inside(int(row) - size // 2, int(column) - size // 2, size)
        return {"row": row, "column": column}
