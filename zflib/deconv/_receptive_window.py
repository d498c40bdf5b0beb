"""The way down without the zeros: one activation touches only its receptive field, so only that is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional as F

from ..record import Tape
from ..record.steps import Filter, Pass, Pool, Rectify, Scale, Step
from .rules import Rules

LOCAL = (Filter, Rectify, Pool, Scale, Pass)
FLOATS = 2**23  # of the largest map in one chunk: 32 MB
ALL = slice(None)  # signal b belongs to image b


@dataclass
class Seeds:
    """B single activations: their values, the image each belongs to, channel, and (row, column)."""

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
class Window:
    """(B,C,h,w) values of maps that are 0 elsewhere; `top` and `left` (B,) may lie outside the map."""

    values: torch.Tensor
    top: torch.Tensor
    left: torch.Tensor

    def fit(self, height: int, width: int) -> Window:
        """Only what lies on the H x W map: what fell on its padding is dropped, and no window sticks out."""
        top, rows = _inside(self.top, self.values.shape[-2], height)
        left, columns = _inside(self.left, self.values.shape[-1], width)
        if (rows, columns) == self.values.shape[-2:] and torch.equal(top, self.top) and torch.equal(left, self.left):
            return self
        values = self.values.new_zeros(*self.values.shape[:2], rows, columns)
        return Window(self.copy_to(values, top, left), top, left)

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

    def write_to(self, images: torch.Tensor, some: torch.Tensor) -> None:
        """Write window b into images[some[b]]."""
        corner = torch.zeros_like(self.top)
        self.copy_to([images[i] for i in some.tolist()], corner, corner)


def _inside(start: torch.Tensor, length: int, size: int) -> tuple[torch.Tensor, int]:
    """New starts and one new length such that windows lie in [0, size) and keep all that lay there."""
    kept = int(((start + length).clamp(max=size) - start.clamp(min=0)).max().clamp(min=1))
    return start.clamp(0, size - kept), kept


def chunk(tape: Tape) -> int:
    """How many seeds go down together."""
    return max(1, FLOATS // max(step.shape[1:].numel() for step in tape.steps))


def possible(tape: Tape, rules: Rules) -> bool:
    """Whether windows can follow the signal down: every step is local, and what overlaps adds up.

    The overlaps "max" and "last" would have to know of the zeros around a window.
    """
    chain = tape.chain() if rules.overlap == "sum" else None
    return chain is not None and all(isinstance(step, LOCAL) and len(step.shape) == 4 for step in chain)


def order(tape: Tape, positions: torch.Tensor) -> torch.Tensor:
    """Seeds by their distance from the border, so that the seeds of one chunk have windows of similar size."""
    last = torch.tensor(tape.activations.shape[-2:], device=positions.device) - 1
    nearest = torch.minimum(positions, last - positions)
    return (nearest[:, 0] * (int(last.max()) + 1) + nearest[:, 1]).argsort(stable=True)


def descend(rules: Rules, tape: Tape, seeds: Seeds) -> Window:
    """The window of the image, (B,3,h,w), that each seed reaches: what whole maps would give, without the zeros."""
    values = F.one_hot(seeds.channels, tape.activations.shape[1]).to(seeds.values) * seeds.values[:, None]
    window, chain = Window(values[:, :, None, None], *seeds.positions.unbind(-1)), tape.chain()
    for step, source in zip(chain[::-1], [*chain[-2::-1], tape.steps[0]]):
        _, stride, padding, _ = step.window
        top, left = (at * s - p for at, s, p in zip((window.top, window.left), stride, padding))
        own = _own(step, window, seeds.owners, top, left)
        (values,) = rules.down(own, window.values, ALL)
        window = Window(values, top, left).fit(*source.shape[-2:])
    return window


def _own(step: Step, window: Window, owners: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> Step:
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
