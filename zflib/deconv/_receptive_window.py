"""The way down without the zeros: one activation touches only its receptive field, so only that is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional as F

from ..record import Tape
from ..record.steps import Add, Cat, Filter, Pass, Pool, Rectify, Scale, Step
from .rules import Rules, walk

LOCAL = (Filter, Rectify, Pool, Scale, Pass, Add, Cat)
FLOATS = 2**22  # of the largest map or window in one chunk: 16 MB
ALL = slice(None)  # signal b belongs to image b


@dataclass
class Seeds:
    """B single activations: values (B,), the image each belongs to (B,), channels (B,), rows and columns (B,2)."""

    values: torch.Tensor
    owners: torch.Tensor
    channels: torch.Tensor
    positions: torch.Tensor

    def __getitem__(self, some: torch.Tensor) -> Seeds:
        return Seeds(self.values[some], self.owners[some], self.channels[some], self.positions[some])

    def maps(self, tape: Tape) -> torch.Tensor:
        """(B,C,h,w), 0 but for one activation each."""
        rows = torch.arange(len(self.values), device=self.values.device)
        maps = self.values.new_zeros(len(rows), *tape.activations.shape[1:])
        maps[_index(tape, rows, self.channels, self.positions)] = self.values
        return maps


def seeds(tape: Tape, owners: torch.Tensor, channels: torch.Tensor, positions: torch.Tensor) -> Seeds:
    """Seeds with the values that the tape's layer has there."""
    return Seeds(tape.activations[_index(tape, owners, channels, positions)], owners, channels, positions)


def _index(tape: Tape, rows, channels, positions) -> tuple[torch.Tensor, ...]:
    return (rows, channels, *positions.unbind(-1)) if tape.activations.dim() == 4 else (rows, channels)


@dataclass
class Cutout:
    """(B,C,h,w) values of maps that are 0 elsewhere; `top` and `left` (B,) may lie outside the map."""

    values: torch.Tensor
    top: torch.Tensor
    left: torch.Tensor

    def fit(self, height: int, width: int) -> Cutout:
        """Only what lies on the H x W map: what fell on its padding is dropped, and no window sticks out."""
        top, rows = _inside(self.top, self.values.shape[-2], height)
        left, columns = _inside(self.left, self.values.shape[-1], width)
        if (rows, columns) == self.values.shape[-2:] and torch.equal(top, self.top) and torch.equal(left, self.left):
            return self
        values = self.values.new_zeros(*self.values.shape[:2], rows, columns)
        return Cutout(self.copy_to(values, top, left), top, left)

    def cut(self, maps: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """(B,C',h,w): the same windows of (N,C',H,W) maps, window b from maps[owners[b]]."""
        h, w = self.values.shape[-2:]
        return maps.unfold(2, h, 1).unfold(3, w, 1)[owners, :, self.top, self.left]

    def copy_to(self, maps, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        """Write each window into maps[b] (C,H,W), whose corner is at (top[b], left[b])."""
        h, w = self.values.shape[-2:]
        for values, out, y, x in zip(self.values, maps, (self.top - top).tolist(), (self.left - left).tolist()):
            t, l, b, r = max(y, 0), max(x, 0), min(y + h, out.shape[-2]), min(x + w, out.shape[-1])
            if b > t and r > l:
                out[:, t:b, l:r] = values[:, t - y : b - y, l - x : r - x]
        return maps

    def around(self, top: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(B,C,height,width): the values with zeros around them, from (top, left) on."""
        h, w = self.values.shape[-2:]
        y, x = self.top - top, self.left - left
        if (y == y[0]).all() and (x == x[0]).all():
            y, x = int(y[0]), int(x[0])
            return F.pad(self.values, (x, width - w - x, y, height - h - y))
        return self.copy_to(self.values.new_zeros(*self.values.shape[:2], height, width), top, left)

    def __add__(self, other: Cutout) -> Cutout:
        """The sum of two signals for the same maps: the window that covers both."""
        top, rows = _covering(self.top, self.values.shape[-2], other.top, other.values.shape[-2])
        left, columns = _covering(self.left, self.values.shape[-1], other.left, other.values.shape[-1])
        first, second = (one.around(top, left, rows, columns) for one in (self, other))
        return Cutout(first + second, top, left)

    def write_to(self, images: torch.Tensor, some: torch.Tensor) -> None:
        """Write window b into images[some[b]]."""
        corner = torch.zeros_like(self.top)
        self.copy_to([images[i] for i in some.tolist()], corner, corner)


def _inside(start: torch.Tensor, length: int, size: int) -> tuple[torch.Tensor, int]:
    """New starts and one new length such that windows lie in [0, size) and keep all that lay there."""
    kept = int(((start + length).clamp(max=size) - start.clamp(min=0)).max().clamp(min=1))
    return start.clamp(0, size - kept), kept


def _covering(first: torch.Tensor, length: int, second: torch.Tensor, other: int) -> tuple[torch.Tensor, int]:
    """Starts and the one length of what covers both of two windows."""
    start = torch.minimum(first, second)
    return start, int((torch.maximum(first + length, second + other) - start).max())


def chunk(tape: Tape, local: bool) -> int:
    """How many seeds go down together: in windows if `local`, else in whole maps."""
    sizes = _reach(tape) if local else [step.shape[1:] for step in tape.steps]
    return max(1, FLOATS // max(math.prod(size) for size in sizes))


def _reach(tape: Tape) -> list[tuple[int, int, int]]:
    """Channels, rows and columns of the window of each map that one activation reaches, far from the border."""
    spans = {tape.place: [(0, 0), (0, 0)]}  # the first and the last row, the first and the last column
    for place in tape.used()[:0:-1]:
        sides = zip(spans[place], *tape.steps[place].window)
        span = [(a * s - p, b * s - p + d * (k - 1)) for (a, b), k, s, p, d in sides]
        for source in tape.steps[place].inputs:
            both = zip(span, spans.get(source, span))
            spans[source] = [(min(a, c), max(b, d)) for (a, b), (c, d) in both]
    shapes = {place: tape.steps[place].shape[1:] for place in spans}
    return [(c, *(min(b - a + 1, n) for (a, b), n in zip(spans[p], sides))) for p, (c, *sides) in shapes.items()]


def possible(tape: Tape, rules: Rules) -> bool:
    """Whether windows can follow the signal down: every step is local, and what overlaps adds up.

    The overlaps "max" and "last" would have to know of the zeros around a window.
    """
    way = [tape.steps[place] for place in tape.used()[1:]]
    local = all(isinstance(step, LOCAL) and len(step.shape) == 4 for step in way)
    return rules.overlap == "sum" and local and all(step.dim == 1 for step in way if isinstance(step, Cat))


def order(tape: Tape, positions: torch.Tensor) -> torch.Tensor:
    """Seeds by their distance from the border, so that the seeds of one chunk have windows of similar size."""
    last = torch.tensor(tape.activations.shape[-2:], device=positions.device) - 1
    nearest = torch.minimum(positions, last - positions)
    return (nearest[:, 0] * (int(last.max()) + 1) + nearest[:, 1]).argsort(stable=True)


def descend(rules: Rules, tape: Tape, seeds: Seeds) -> Cutout:
    """The window of the image, (B,3,h,w), that each seed reaches: what whole maps would give, without the zeros."""
    values = F.one_hot(seeds.channels, tape.activations.shape[1]).to(seeds.values) * seeds.values[:, None]

    def below(step: Step, window: Cutout) -> list[Cutout]:
        window = window.fit(*step.shape[-2:])
        _, stride, padding, _ = step.window
        top, left = (at * s - p for at, s, p in zip((window.top, window.left), stride, padding))
        own = _own(step, window, seeds.owners, top, left)
        return [Cutout(values, top, left) for values in rules.down(own, window.values, ALL)]

    start = Cutout(values[:, :, None, None], *seeds.positions.unbind(-1))
    return walk(tape, start, below).fit(*tape.steps[0].shape[-2:])


def _own(step: Step, window: Cutout, owners: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> Step:
    """The step as if each window were its whole output, and what lies from (top, left) on its whole input."""
    if isinstance(step, Rectify) and step.mask is not None:
        return replace(step, mask=window.cut(step.mask, owners))
    if not isinstance(step, Filter | Pool):
        return step
    kernel, stride, _, dilation = step.window
    sides = zip(window.values.shape[2:], stride, dilation, kernel)
    height, width = ((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in sides)
    own = replace(step, padding=(0, 0), size=(height, width))
    if isinstance(step, Pool):
        corners = (top * width + left)[:, None, None, None]
        own.switches = window.cut(_in_rows_of(width, step), owners) - corners
    return own


#: A pool's switches as they would be in maps of another width: that width, and the switches.
_RENUMBERED: WeakKeyDictionary[Pool, tuple[int, torch.Tensor]] = WeakKeyDictionary()


def _in_rows_of(width: int, step: Pool) -> torch.Tensor:
    """(N,C,h,w) switches as they would be in maps of `width` columns."""
    known, switches = _RENUMBERED.get(step, (None, None))
    if known != width:
        rows = step.switches // step.size[1]
        switches = step.switches + rows * (width - step.size[1])
        _RENUMBERED[step] = width, switches
    return switches
