"""The explorer of correspondence: a part masked in five images, the signs of what changes, the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from .._arguments import check_choice, check_finite, check_layer, check_net, spread_layers
from ..data.scenes import FRONTAL, scenes
from ..experiments import Correspondence
from ..experiments.occluders import masked
from ..experiments.part_correspondence import BATCH
from ..record.hooks import check_layers, watched
from ..record.inputs import check_images
from ..studies.dogs import Table
from .ahead import KEPT, Ahead
from .charts import QUIET, place
from .panels import Panel, list_slider, menu, slider

SIDE, GAP = 160, 6  # pixels of each masked image, and between two
SHOWN = 6  # images
UNITS = 60  # columns of the picture of signs
CELL = 12  # pixels of one sign
RANDOM = "random"
PARTS = ("right eye", "left eye", "nose", "mouth")  # of the rendered faces
#: What a unit does when the part disappears: it loses, stays exactly as it was, gains.
COLOURS = {1: (178, 24, 43), 0: (235, 235, 235), -1: (33, 102, 172)}
AT_PART = (0, 0)  # a mask that lies on its part


class Masker:
    """(N,3,H,W) preprocessed images whose parts, (N,2) positions by name, can be masked; "random" is added to them.

    A mask may lie `away` from its part, by so many rows and columns in every image. Scores are of all `layers`.
    """

    def __init__(self, net: nn.Module, images: torch.Tensor, positions: Mapping[str, torch.Tensor], layers):
        if not isinstance(positions, Mapping) or not positions:
            raise ValueError(f"positions must name the parts, a dict name -> (N,2), got {positions!r}")
        self.net, self.layers = net, list(layers)
        self.images, self.parts = check_images(images, net), [*positions, RANDOM]
        for part, places in positions.items():
            if len(places) != len(self.images):
                got = f"{len(places)} for {len(self.images)} images"
                raise ValueError(f"positions of {part!r} must be one for each image, got {got}")
        self.table = Table(net, self.images, positions)
        self.scores = Ahead(self._scores, kept=KEPT)

    @cached_property
    def pixels_before(self) -> list[np.ndarray]:
        """The first images, as they are drawn under a mask."""
        shown = self.images[:SHOWN]
        return [show.upscale(show.image_pixels(image, self.net), SIDE, smooth=True) for image in shown]

    def boxes(self, part: str, size: int, away: tuple[int, int] = AT_PART) -> torch.Tensor:
        """(N,4) the masks, kept inside the images."""
        boxes, (height, width) = self.table.boxes(part, size), self.table.whole
        if away == AT_PART:
            return boxes
        corner = boxes[:, :2] + torch.tensor(away)
        corner = torch.minimum(corner.clamp(min=0), torch.tensor([height - size, width - size]))
        return torch.cat([corner, corner + size], dim=1)

    def _scores(self, part: str, size: int, away: tuple[int, int] = AT_PART) -> dict[str, Correspondence]:
        """Layer -> what changes there, from one forward pass of the masked images; see `experiments.correspondence`."""
        after = self._features(masked(self.images, self.boxes(part, size, away)))
        return {layer: Correspondence(self._before[layer] - after[layer], layer) for layer in self.layers}

    @cached_property
    def _before(self) -> dict[str, torch.Tensor]:
        return self._features(self.images)

    def _features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Layer -> (N,D), in batches of the same sizes with and without masks."""
        with watched(self.net, self.layers) as look:
            found = [look(some)[0] for some in images.split(BATCH)]
        values = {layer: torch.cat([one[layer].flatten(1) for one in found]) for layer in self.layers}
        for layer, units in values.items():
            check_finite(units, f"layer {layer!r}")
        return values

    def sizes(self) -> list[int]:
        """Odd sides that leave room for random rectangles, from 3 pixels on; ValueError if not even those fit."""
        fitting = []
        for size in range(3, max(4, min(self.table.whole) // 2), 2):
            try:
                self.table.boxes(RANDOM, size)
            except ValueError:
                if not fitting:
                    raise
                break
            fitting.append(size)
        return fitting

    def prepare(self, sizes: Sequence[int]) -> None:
        """Compute the scores of all parts for these sizes in the background."""
        self.scores.prepare((part, size) for size in sizes for part in self.parts)

    def pixels(self, part: str, layer: str, size: int, away: tuple[int, int] = AT_PART) -> np.ndarray:
        """(H,W,3) uint8: the masked images; below, the signs of the strongest-changing units, and all parts' scores."""
        score, bar = self._score(part, layer, size, away), part if away == AT_PART else "moved"
        others = {name: self.scores(name, size)[layer] for name in self.parts if name != part}
        scores = {bar if name == part else name: others.get(name, score) for name in self.parts}
        boxes = self.boxes(part, size, away)[:SHOWN].tolist()
        above = show.beside([self._masked(*pair) for pair in zip(self.pixels_before, boxes)], gap=GAP)
        titles = [f"{layer}: what becomes of the units that change most (red: loses, blue: gains)",
                  "scores (bars) and their nulls (lines)"]  # fmt: skip
        below = show.beside([sign_pixels(score.changes), bars(scores, bar)], titles, gap=18)
        width = max(above.shape[1], below.shape[1])
        return np.concatenate(
            [np.pad(row, ((0, 10), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in (above, below)]
        )

    def _score(self, part: str, layer: str, size: int, away: tuple[int, int]) -> Correspondence:
        return (self.scores(part, size) if away == AT_PART else self.scores(part, size, away))[layer]

    def _masked(self, pixels: np.ndarray, box: list[int]) -> np.ndarray:
        """One image with its mask, grey as the network sees it, and a frame around it."""
        scale, pixels = SIDE / max(self.table.whole), pixels.copy()
        top, left, bottom, right = (round(edge * scale) for edge in box)
        pixels[top:bottom, left:right] = self._grey
        return show.fit(show.framed(pixels, box, scale=scale), SIDE)

    @cached_property
    def _grey(self) -> np.ndarray:
        return show.image_pixels(torch.zeros_like(self.images[0]), self.net)[0, 0]

    def at(self, part: str, size: int, x: int, y: int, start: tuple[int, int]) -> tuple[int, int] | None:
        """How far away from its part a mask lies whose middle is at column x and row y of the picture drawn.

        The pointer went down at `start`; None unless that was on one of the images.
        """
        number = start[0] // (SIDE + GAP)
        if number >= len(self.pixels_before) or start[1] >= SIDE:
            return None
        whole, box = self.table.whole, self.boxes(part, size)[number].tolist()
        middle = place(x - number * (SIDE + GAP), y, whole, side=SIDE)
        corner = [min(max(round(at - size / 2), 0), end - size) for at, end in zip(middle, whole)]
        return corner[0] - box[0], corner[1] - box[1]

    def describe(self, part: str, layer: str, size: int, away: tuple[int, int] = AT_PART) -> str:
        """The same in words, with the numbers."""
        score, (down, right) = self._score(part, layer, size, away), away
        moved = "" if away == AT_PART else f" {_way(down, 'down', 'up')}, {_way(right, 'right', 'left')} from it"
        return (
            f"{part} masked with {size}×{size} pixels{moved}, {layer}: {score.changed_fraction:.1%} of the units "
            f"change; delta {score.delta:.3f}, by chance {score.null:.3f}, delta/null {score.ratio:.2f}."
        )


def _way(pixels: int, positive: str, negative: str) -> str:
    return f"{abs(pixels)} px {positive if pixels >= 0 else negative}"


def strongest(changes: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) the units of (N,D) changes that change most, each image's changes taken relative to its largest."""
    size = changes.abs()
    relative = size / size.amax(dim=1, keepdim=True).clamp(min=1e-12)
    return relative.mean(dim=0).argsort(descending=True, stable=True)[:count]


def sign_pixels(changes: torch.Tensor, *, count: int = UNITS, cell: int = CELL) -> np.ndarray:
    """(H,W,3) uint8: a row for each image, a column for each of the strongest-changing units, the strongest first."""
    chosen = changes.cpu()[:, strongest(changes, count).cpu()].sign().int().numpy()
    small = np.zeros((*chosen.shape, 3), np.uint8)
    for sign, colour in COLOURS.items():
        small[chosen == sign] = colour
    large = small.repeat(cell, 0).repeat(cell, 1)
    large[::cell], large[:, ::cell] = 255, 255  # lines between them
    return large


def bars(scores: Mapping[str, Correspondence], chosen: str, *, width: int = 250, step: int = 24) -> np.ndarray:
    """(H,W,3) uint8: each part's delta as a bar, orange for the chosen one, and its null as a line."""
    sheet = Image.new("RGB", (width, step * len(scores) + 4), "white")
    draw, left, full = ImageDraw.Draw(sheet), 92, max(max(s.delta, s.null) for s in scores.values()) or 1.0
    reach = width - left - 52
    for row, (part, score) in enumerate(scores.items()):
        top, length = row * step + 3, round(score.delta / full * reach)
        draw.text((0, top), part, fill="black", font=show.font(12))
        colour = show.ORANGE if part == chosen else QUIET
        draw.rectangle((left, top + 1, left + max(1, length), top + step - 9), fill=colour)
        line = left + round(score.null / full * reach)
        draw.line((line, top - 2, line, top + step - 6), fill="black", width=2)
        draw.text((left + reach + 10, top), f"{score.delta:.3f}", fill="black", font=show.font(12))
    return np.asarray(sheet)


def correspondence(
    net: nn.Module, images: torch.Tensor | None = None, positions: Mapping[str, torch.Tensor] | None = None, *,
    layers=None, size: int | None = None,
) -> Panel:  # fmt: skip
    """Figure 8 to play with: choose the part, the layer and the size of the masks; pictures, signs and scores follow.

    Sliders, or a drag in one of the images, move the masks away from the part, in all images by as much.
    `images` are preprocessed (N,3,H,W), `positions` say where their parts are, (N,2) rows and columns by name; without
    both, five rendered faces. `layers` are those to choose from, the last one is shown first; by default four such as
    conv1, conv3, conv5 and fc7. `size` is the first side in pixels, by default a fifth of the image's.
    """
    check_net(net)
    if (images is None) != (positions is None):
        raise ValueError("positions must come with images: (N,2) rows and columns by the name of the part")
    if images is None:
        images, positions = _faces(net)
    layers = spread_layers(net) if layers is None else layers
    layers = [check_layer(net, layer) for layer in check_layers(net, layers)]
    masker = Masker(net, images, positions, layers)
    sides = masker.sizes()
    start = min(sides, key=lambda side: abs(side - min(masker.table.whole) / 5)) if size is None else size
    check_choice("size", start, sides)
    (height, width), layer = masker.table.whole, layers[-1]
    controls = {
        "part": menu("part", masker.parts, masker.parts[0]),
        "layer": menu("layer", layers, layer),
        "size": list_slider("size", sides, start),
        "down": slider("down", 1 - height, height - 1, 0),
        "right": slider("right", 1 - width, width - 1, 0),
    }

    def draw(part: str, layer: str, size: int, down: int, right: int) -> tuple[np.ndarray, str]:
        shown = part, layer, size, (down, right)
        drawn = masker.pixels(*shown), masker.describe(*shown)
        number = sides.index(size)
        masker.prepare(sides[number + 1 : number + 2] + sides[max(0, number - 1) : number])
        return drawn

    def pointer(x: int, y: int, start: tuple[int, int]) -> dict[str, int]:
        away = masker.at(controls["part"].value, controls["size"].value, x, y, start)
        return {} if away is None else {"down": away[0], "right": away[1]}

    return Panel(draw, controls, pointer=pointer)


def _faces(net: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Five frontal faces as `net` takes them, and where their parts are."""
    if not hasattr(net, "geometry"):
        raise ValueError("images are needed for this network: preprocessed (N,3,H,W), with positions of their parts")
    faces, sizes = scenes(5, classes="face", pose=FRONTAL, size=net.geometry.resize), net.geometry
    margin = (sizes.resize - sizes.crop) // 2
    return net.preprocess(faces.pixels), {part: faces.part(part) - margin for part in PARTS}
