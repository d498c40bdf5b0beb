"""The explorer of correspondence: a part masked in five images, the signs of what changes, the scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from .._arguments import check_choice, check_images, check_layer, check_net, spread_layers
from ..data.scenes import FRONTAL, scenes
from ..experiments import Correspondence
from ..experiments.occluders import masked
from ..record.hooks import check_layers
from ..studies.dogs import Table
from .charts import QUIET, framed_image
from .panels import Panel, list_slider, menu

SIDE = 132  # pixels of each masked image
UNITS = 60  # columns of the picture of signs
CELL = 11  # pixels of one sign
RANDOM = "random"
PARTS = ("right eye", "left eye", "nose", "mouth")  # of the rendered faces
#: What a unit does when the part disappears: it loses, stays exactly as it was, gains.
COLOURS = {1: (178, 24, 43), 0: (235, 235, 235), -1: (33, 102, 172)}


class Masker:
    """(N,3,H,W) preprocessed images whose parts, (N,2) positions by name, can be masked; "random" is added to them."""

    def __init__(self, net: nn.Module, images: torch.Tensor, positions: Mapping[str, torch.Tensor]):
        if not isinstance(positions, Mapping) or not positions:
            raise ValueError(f"positions must name the parts, a dict name -> (N,2), got {positions!r}")
        self.images, self.parts = check_images(images, net), [*positions, RANDOM]
        for part, places in positions.items():
            if len(places) != len(self.images):
                got = f"{len(places)} for {len(self.images)} images"
                raise ValueError(f"positions of {part!r} must be one for each image, got {got}")
        self.table = Table(net, self.images, positions)

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

    def pixels(self, part: str, layer: str, size: int) -> np.ndarray:
        """(H,W,3) uint8: the masked images; below, the signs of the strongest-changing units, and all parts' scores."""
        scores = {name: self.table.score(name, layer, size) for name in self.parts}
        boxes = self.table.boxes(part, size)
        covered = zip(masked(self.images, boxes), boxes.tolist())
        above = show.beside([framed_image(image, self.table.net, box, SIDE) for image, box in covered][:6], gap=6)
        titles = [f"{layer}: what becomes of the units that change most (red: loses, blue: gains)",
                  "scores (bars) and their nulls (lines)"]  # fmt: skip
        below = show.beside([sign_pixels(scores[part].changes), bars(scores, part)], titles, gap=18)
        width = max(above.shape[1], below.shape[1])
        return np.concatenate(
            [np.pad(row, ((0, 10), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in (above, below)]
        )

    def describe(self, part: str, layer: str, size: int) -> str:
        """The same in words, with the numbers."""
        score = self.table.score(part, layer, size)
        return (
            f"{part} masked with {size}×{size} pixels, {layer}: {score.changed_fraction:.1%} of the units change; "
            f"delta {score.delta:.3f}, by chance {score.null:.3f}, delta/null {score.ratio:.2f}."
        )


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
    layers, masker = [check_layer(net, layer) for layer in check_layers(net, layers)], Masker(net, images, positions)
    sides = masker.sizes()
    start = min(sides, key=lambda side: abs(side - min(masker.table.whole) / 5)) if size is None else size
    check_choice("size", start, sides)
    controls = {
        "part": menu("part", masker.parts, masker.parts[0]),
        "layer": menu("layer", layers, layers[-1]),
        "size": list_slider("size", sides, start),
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
