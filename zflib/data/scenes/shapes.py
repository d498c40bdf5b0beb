"""Shapes by their distance to the edge, where they lie in a picture, and how they are painted with smooth edges.

A shape is a function of x (right) and y (down) that is the distance to its edge: negative inside, positive outside.
One clip of that distance is the share of a pixel that the shape covers, so no edge has stairs.
"""

from dataclasses import dataclass
from functools import cache
from math import hypot

import numpy as np


@dataclass(frozen=True)
class Shape:
    """One piece of an object; lengths in object units (an object reaches from about -1 to 1, down and right).

    `size`: half height and half width (for a ring: radius and half thickness). `points`: corners (down, right) of a
    convex polygon. `name`: the part that it shows, at `at` + `mark`. `loose`, `spin`: which of the object's random
    numbers changes its size by up to 15 % or turns it; 0 for none. `line`: how thick its dark outline is.
    """

    kind: str
    at: tuple[float, float]
    size: tuple[float, float] = (1.0, 1.0)
    paint: str = "body"
    name: str = ""
    points: tuple[tuple[float, float], ...] = ()
    turn: float = 0.0
    mark: tuple[float, float] = (0.0, 0.0)
    loose: int = 0
    spin: int = 0
    line: float = 0.05


@dataclass(frozen=True)
class Place:
    """Where B objects lie: `centre` (B,2) in pixels, `unit` (B,) pixels per object unit, `angle`, `stretch`, `turn`.

    First turned by `turn` (B,), then stretched (B,2: a negative stretch to the right is a mirror image), then turned by
    `angle` (B,): radians, counter-clockwise as one sees it.
    """

    centre: np.ndarray
    unit: np.ndarray
    angle: np.ndarray
    stretch: np.ndarray
    turn: np.ndarray

    def pixels(self, down: float, right: float) -> np.ndarray:
        """(B,2) rows and columns of a point given in object units (before `turn`, which belongs to one shape)."""
        y, x = down * self.stretch[:, 0] * self.unit, right * self.stretch[:, 1] * self.unit
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.centre + np.stack([y * cos - x * sin, x * cos + y * sin], axis=1)

    def coordinates(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(y, x), each (B,S,S) float32: every pixel of pictures `size` pixels a side in object units."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        tall, wide = self.unit * self.stretch[:, 0], self.unit * self.stretch[:, 1]
        y, x = (cos / tall, sin / tall), (-sin / wide, cos / wide)  # each from pixels (down, right)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        y, x = [cos * y[i] + sin * x[i] for i in (0, 1)], [cos * x[i] - sin * y[i] for i in (0, 1)]
        down, right = np.arange(size) - self.centre[:, :1], np.arange(size) - self.centre[:, 1:]  # (B,S) pixels each
        return _plane(y, down, right), _plane(x, down, right)


def _plane(slopes: list[np.ndarray], down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(B,S,S) float32, summed from float64 rows and columns."""
    rows, columns = slopes[0][:, None] * down, slopes[1][:, None] * right
    return rows.astype(np.float32)[:, :, None] + columns.astype(np.float32)[:, None, :]


def _ellipse(y: np.ndarray, x: np.ndarray, shape: Shape) -> np.ndarray:
    tall, wide = shape.size
    if tall == wide:
        return np.sqrt(y * y + x * x) - tall
    y, x = y / tall, x / wide
    y, x = y * y, x * x
    level = np.sqrt(y + x)  # 1 on the edge; divided by its slope it is a distance there
    return level * (level - 1) / np.sqrt(y / tall**2 + x / wide**2 + 1e-6)


def _half(y: np.ndarray, x: np.ndarray, shape: Shape) -> np.ndarray:
    return np.maximum(_ellipse(y, x, shape), -y)


def _box(y: np.ndarray, x: np.ndarray, shape: Shape) -> np.ndarray:
    return np.maximum(np.abs(y) - shape.size[0], np.abs(x) - shape.size[1])


def _ring(y: np.ndarray, x: np.ndarray, shape: Shape) -> np.ndarray:
    return np.abs(np.sqrt(y * y + x * x) - shape.size[0]) - shape.size[1]


def _polygon(y: np.ndarray, x: np.ndarray, shape: Shape) -> np.ndarray:
    sides = [normal_y * y + normal_x * x - offset for normal_y, normal_x, offset in _sides(shape.points)]
    return np.maximum.reduce(sides)


@cache
def _sides(points: tuple[tuple[float, float], ...]) -> list[tuple[np.float32, ...]]:
    """Outward unit normal (down, right) and offset of every side of a convex polygon."""
    centre = [sum(values) / len(points) for values in zip(*points)]
    sides = []
    for (y0, x0), (y1, x1) in zip(points, points[1:] + points[:1]):
        length = hypot(y1 - y0, x1 - x0)
        normal = (x1 - x0) / length, (y0 - y1) / length
        offset = normal[0] * y0 + normal[1] * x0
        if normal[0] * centre[0] + normal[1] * centre[1] > offset:  # it pointed inwards
            normal, offset = (-normal[0], -normal[1]), -offset
        sides.append(tuple(np.float32(value) for value in (*normal, offset)))
    return sides


_DISTANCE = {"ellipse": _ellipse, "half": _half, "box": _box, "ring": _ring, "polygon": _polygon}


def paint(picture: np.ndarray, shape: Shape, place: Place, fill: np.ndarray, ink: np.ndarray | None = None) -> None:
    """Paints a shape on B pictures (B,4,S,S) in place: red, green, blue, and how much of a pixel the object covers.

    `fill`: (B,4) one colour each, or (B,4,S,S) pictures to cut the shape out of. `ink`: the colour (B,4) of its
    outline; without it the shape is a veil that lets 60 % of what is below shine through.
    """
    edge = _DISTANCE[shape.kind](*place.coordinates(picture.shape[-1]), shape)
    edge *= place.unit.astype(np.float32)[:, None, None]
    veil = _cover(edge)
    fill = fill if fill.ndim == 4 else fill[:, :, None, None]
    if ink is None:
        veil *= np.float32(0.4)
    elif shape.line:
        edge += (shape.line * place.unit).astype(np.float32)[:, None, None]
        ink = ink[:, :, None, None]
        fill = (fill - ink) * _cover(edge)[:, None]
        fill += ink
    fill = fill - picture
    fill *= veil[:, None]
    picture += fill


def _cover(edge: np.ndarray) -> np.ndarray:
    """The share of each pixel, 0 to 1, that lies inside an edge at this distance in pixels."""
    inside = np.float32(0.5) - edge
    return np.clip(inside, 0, 1, out=inside)
