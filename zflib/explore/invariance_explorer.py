"""The explorer of invariance: Figure 5 for one picture that the learner moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from .. import data, show
from .._arguments import check_label, check_layer, spread_layers
from ..data.photo_windows import SHOWN
from ..experiments.transforms import Move, check_fill, moved
from ..record.endings import ending, probabilities
from ..record.hooks import check_layers, watched
from ..record.inputs import check_image, check_images
from .charts import GAP, SIDE, STRIP, Chart, class_bars, class_name, place, row_and_column, rows_of
from .gradually import Gradually
from .panels import Panel, slider, toggle

FULL = 1.5  # where the field of the distances ends
AMOUNTS = 24  # steps of the pale curve
ANOTHER = "the distance to another picture"
UNITS = {"down": "pixels down", "right": "pixels to the right", "scale": "factor", "angle": "degrees"}
#: How far each layer went and p(label), by amount.
Curve = dict[float, tuple[dict[str, float], float]]


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
        self.ending = ending(net, self.image)
        self.before, chances = self._look(self.image)
        self.chances = chances[0]
        self.label = int(self.chances.argmax()) if label is None else check_label(label, len(self.chances))
        self.yardstick, self.unit = self._measure(others)

    def _look(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        with watched(self.net, self.layers) as look:
            found, scores = look(images)
        return {layer: values.flatten(1) for layer, values in found.items()}, probabilities(scores, self.ending)

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
        return {layer: float(s.sqrt()) or 1.0 for layer, s in squares.items()}, ANOTHER

    def _at(self, move: Move) -> tuple[torch.Tensor, dict[str, float], torch.Tensor]:
        """((3,H,W) the moved image, {layer: its distance over the yardstick}, (classes,) probabilities)."""
        image = moved(self.image, move, fill=self.fill)
        after, chances = self._look(image)
        distance = {k: float((after[k] - self.before[k]).norm()) / self.yardstick[k] for k in self.layers}
        return image[0], distance, chances[0]

    def measure(self, move: Move) -> tuple[dict[str, float], float]:
        """({layer: its distance over the yardstick}, p(`label`))."""
        _, distance, chances = self.at(move)
        return distance, float(chances[self.label])

    def pixels(self, move: Move, along: str, span: tuple[float, float], whole: Curve, measured: Curve) -> np.ndarray:
        """(H,W,3) uint8: the moved image, the distances and p(`label`) as curves, the most probable classes.

        The curves go along one of the numbers of a move, over its `span`: `whole` pale, `measured` as points.
        """
        image, _, chances = self.at(move)
        picture = show.fit(show.image_pixels(image, self.net), SIDE, smooth=True)
        now, label = getattr(move, along), class_name(self.net, self.label, most=14)
        far = [{layer: {at: distance[layer] for at, (distance, _) in curve.items()} for layer in self.layers}
               for curve in (whole, measured)]  # fmt: skip
        likely = [{label: {at: chance for at, (_, chance) in curve.items()}} for curve in (whole, measured)]
        one = 1.0 if self.unit == ANOTHER else None
        charts = Chart(span, FULL, one).pixels(now, *far), Chart(span, 1.0).pixels(now, *likely)
        far_title = f"how far the features went (1: {self.unit}), by {UNITS[along]}"
        titles = ["the picture, moved", far_title], ["the most probable classes", f"p({label}), by {UNITS[along]}"]
        return rows_of([[picture, charts[0]], [class_bars(chances, self.net, self.label), charts[1]]], titles)

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


def invariance(net: nn.Module, image: torch.Tensor, *, label: int | None = None,
               layers: Sequence[str] | None = None, others: torch.Tensor | None = None,
               fill: float | str = 0.0) -> Panel:  # fmt: skip
    """Figure 5 to play with: shift, enlarge and turn a picture; distances and probabilities follow as growing curves.

    Drag the picture or a curve, or move the sliders. Points are what was measured on the way; the pale curve, along the
    control that was moved last, is measured meanwhile.
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
    return Walk(mover, controls).panel


class Walk:
    """The panel, and what was measured on the way: the curves grow along the control that was moved last."""

    def __init__(self, mover: Mover, controls: dict):
        self.mover, self.spans = mover, {name: (control.min, control.max) for name, control in controls.items()}
        self.measured: dict[tuple, Curve] = {}
        along = toggle("along", list(controls), "down")
        for name, control in controls.items():
            control.observe(lambda change, name=name: setattr(along, "value", name), names="value")
        self.whole = Gradually(self._curve, lambda: self.panel.redraw())
        start = {name: control.value for name, control in controls.items()}
        self.whole.at_once(self._key("down", Move(**start)))
        self.panel = Panel(self.draw, controls | {"along": along}, pointer=self.point)

    @staticmethod
    def _key(along: str, move: Move) -> tuple[str, Move]:
        """What all moves of one curve share."""
        return along, move._replace(**{along: 0})

    def _curve(self, key: tuple[str, Move]) -> Iterator[Curve]:
        """What the mover measures at some places, then between them, and so on."""
        (along, move), found = key, {}
        low, high = self.spans[along]
        amounts = [low + (high - low) * number / AMOUNTS for number in range(AMOUNTS + 1)]
        for every in (8, 4, 2, 1):
            for amount in amounts[::every]:
                if amount not in found:
                    found[amount] = self.mover.measure(move._replace(**{along: amount}))
            yield dict(found)

    def draw(self, down: int, right: int, scale: float, angle: int, along: str) -> tuple[np.ndarray, str]:
        """The picture and its words; what it took is one more point of the curves."""
        move = Move(down, right, scale, angle)
        key = self._key(along, move)
        points = self.measured.setdefault(key, {})
        points[getattr(move, along)] = self.mover.measure(move)
        pixels = self.mover.pixels(move, along, self.spans[along], self.whole(key) or {}, dict(points))
        return pixels, self.mover.describe(move)

    def point(self, x: int, y: int, start: tuple[int, int]) -> dict:
        """In the picture the pointer takes its middle along; in the curves it chooses how far the picture is moved."""
        below, across = row_and_column(*start)
        if across:
            along = self.panel.controls["along"].value
            amount = Chart(self.spans[along], 1.0).amount(x - SIDE - GAP)
            return {along: amount if along == "scale" else round(amount)}
        if below:
            return {}
        height, width = self.mover.image.shape[2:]
        row, column = place(x, y - STRIP, (height, width), side=SIDE)
        return {"right": round(column - width / 2), "down": round(row - height / 2)}
