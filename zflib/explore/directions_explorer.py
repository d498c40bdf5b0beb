"""The explorer of directions: walk along a unit's flattest and steepest directions, and watch it fire."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from .._arguments import check_choice, shape_or_type
from ..experiments.hessian import curvature
from ..experiments.one_unit import OneUnit
from ..studies import curvature as study
from .panels import Panel, list_slider, menu

SIDE, WIDE, TALL = 300, 676, 300  # pixels of the image, and of the curve beside it
STOPS = tuple(range(-60, 61, 5))  # degrees
COLOURS = {"response": "#1f77b4", "quadratic": "#ff7f0e"}


class Walks:
    """A unit, its image, and the directions that lead away from it, by name; `curve(name)` is what happens there."""

    def __init__(self, unit: OneUnit, directions: dict[str, torch.Tensor]):
        self.unit, self.directions, self._curves = unit, directions, {}

    def curve(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(A,) true and (A,) predicted activations at `STOPS`."""
        if name not in self._curves:
            lines = study.response, study.quadratic
            self._curves[name] = tuple(line(self.unit, self.directions[name], STOPS) for line in lines)
        return self._curves[name]

    def pixels(self, name: str, degrees: int) -> np.ndarray:
        """(H,W,3) uint8: the image after the walk, the direction, and the curve so far."""
        window = self.unit.window()
        here = study.turned(window, self.unit.window(self.directions[name]), [degrees])[0]
        tiles = [show.image_pixels(here, self.unit.net), show.signed_pixels(self.unit.window(self.directions[name]))]
        tiles = [show.fit(tile, SIDE, smooth=True) for tile in tiles]
        curve = _curve(*self.curve(name), STOPS.index(degrees))
        return show.beside([*tiles, curve], [f"the image, turned by {degrees}°", f"direction: {name}", TITLE])

    def words(self, name: str, degrees: int) -> str:
        """The same in words."""
        true, predicted = (float(line[STOPS.index(degrees)]) for line in self.curve(name))
        begin = float(self.curve(name)[0][STOPS.index(0)])
        return (f"{self.unit.layer}:{self.unit.channel}, {degrees}° along {name}: activation {true:.1f}, which is "
                f"{true / (begin or 1):.0%} of {begin:.1f}; the quadratic predicts {predicted:.1f}.")  # fmt: skip


TITLE = "activation: true (blue, solid) and predicted by the quadratic (orange, dashed)"


def directions(
    net: nn.Module, image: torch.Tensor, layer: str, channel: int, *, position=None, k: int = 2,
    step: float | None = study.STEP, seed: int = 0, found: torch.Tensor | None = None,
) -> Panel:  # fmt: skip
    """Walk from a (3,H,W) image along great circles in its unit's k flattest and steepest directions, or a random one.

    The picture shows the image on the way, the direction, and the activation beside what the quadratic predicts.
    Directions are those of `zflib.curvature(…, sphere=True, step=step)`, which takes seconds, unless its (2k,3,H,W)
    are given as `found`. Bad input raises ValueError or TypeError.
    """
    unit = OneUnit(net, image, layer, channel, position)
    if found is None:
        found = curvature(net, image, layer, channel, position=position, k=k, sphere=True, step=step, seed=seed)[1]
    if not isinstance(found, torch.Tensor) or found.dim() != 4 or not len(found) or len(found) % 2:
        raise ValueError(f"found must be (2k,3,H,W) directions of this image, got {shape_or_type(found)}")
    if found.shape[1:] != unit.image.shape:
        raise ValueError(f"found must be (2k,3,H,W) directions of this image, got shape {tuple(found.shape)}")
    if not bool(unit.window(found).flatten(1).any(dim=1).all()):
        raise ValueError("found: a direction is 0, since the unit is linear around this image and none is special; "
                         "give a larger step=, a share of the image's length")  # fmt: skip
    noise = torch.randn(unit.image.shape, generator=torch.Generator().manual_seed(seed)).to(unit.image)
    count = len(found) // 2
    named = {f"flattest {i + 1}": found[i] for i in range(count)}
    named |= {f"steepest {i + 1}": found[-1 - i] for i in range(count)} | {"random": noise}
    walks = Walks(unit, named)

    def draw(direction: str, degrees: int) -> tuple[np.ndarray, str]:
        check_choice("direction", direction, named)
        return walks.pixels(direction, degrees), walks.words(direction, degrees)

    controls = {"direction": menu("direction", named, "flattest 1"), "degrees": list_slider("turn by", STOPS, 0)}
    panel = Panel(draw, controls)
    ways = [("flattest 1", (0, 20, 40, 60)), ("steepest 1", (20, 40)), ("random", (30, 60))]
    panel.frames = [{"direction": name, "degrees": degrees} for name, stops in ways for degrees in stops]
    return panel


def _curve(true: torch.Tensor, predicted: torch.Tensor, here: int) -> np.ndarray:
    """(TALL,WIDE,3) uint8: both lines over the degrees, a dot where the image is now."""
    sheet = Image.new("RGB", (WIDE * 2, TALL * 2), "white")  # drawn twice as large: smooth edges
    draw, top = ImageDraw.Draw(sheet), float(true.max()) * 1.05 or 1.0
    left, right, floor = 90, WIDE * 2 - 30, TALL * 2 - 60

    def place(number: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * number / (len(STOPS) - 1)
        return x, floor - (floor - 20) * min(max(value / top, 0.0), 1.0)

    draw.line((left, 20, left, floor, right, floor), fill="#888888", width=3)
    for degrees in (-60, -30, 0, 30, 60):
        x, _ = place(STOPS.index(degrees), 0)
        draw.text((x, floor + 10), f"{degrees}°", fill="black", font=show.font(26), anchor="mt")
    draw.text((left - 10, place(0, float(true.max()))[1]), f"{float(true.max()):.1f}", fill="black", font=show.font(26),
              anchor="rm")  # fmt: skip
    draw.text((left - 10, floor), "0", fill="black", font=show.font(26), anchor="rm")
    points = [place(i, float(v)) for i, v in enumerate(predicted)]
    for one, other in list(itertools.pairwise(points))[::2]:
        draw.line((*one, *other), fill=COLOURS["quadratic"], width=6)
    draw.line([place(i, float(v)) for i, v in enumerate(true)], fill=COLOURS["response"], width=7, joint="curve")
    x, y = place(here, float(true[here]))
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=COLOURS["response"], outline="white", width=3)
    return np.asarray(sheet.resize((WIDE, TALL), Image.Resampling.BOX))
