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
FLOATS = 2**24  # of the largest map in one chunk: 64 MB
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

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,h) rows and (B,w) columns of the values in the map."""
        rows, columns = (torch.arange(side, device=self.values.device) for side in self.values.shape[-2:])
        return self.top[:, None] + rows, self.left[:, None] + columns

    def cut(self, maps: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """The same windows of (N,C,H,W) maps; what lies outside repeats the border, to be met by zeros."""
        rows, columns = self.grid()
        rows, columns = rows.clamp(0, maps.shape[-2] - 1), columns.clamp(0, maps.shape[-1] - 1)
        owners = owners[:, None, None, None]
        channels = torch.arange(maps.shape[1], device=maps.device)[:, None, None]
        return maps[owners, channels, rows[:, None, :, None], columns[:, None, None, :]]

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
    """Whether every step is local, so that windows can follow the signal down; overlaps that are sums.

    Of zeros that a window leaves out, "max" and "last" would have to know.
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
        (values,) = rules.down(_seen_by(window, step, seeds.owners), window.values, ALL)
        (sy, sx), (py, px) = (step.window.stride, step.window.padding)
        window = Window(values, window.top * sy - py, window.left * sx - px).fit(*source.shape[-2:])
    return window


def _seen_by(window: Window, step: Step, owners: torch.Tensor) -> Step:
    """The same step as if each window were its whole output: without padding, with switches that count from there."""
    if isinstance(step, Filter | Pool):
        kernel, stride, _, dilation = step.window
        size = tuple(
            (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(window.values.shape[2:], stride, dilation, kernel)
        )
        if isinstance(step, Filter):
            return replace(step, padding=(0, 0), size=size)
        return replace(step, padding=(0, 0), size=size, switches=_switches(window, step, owners, size[1]))
    if isinstance(step, Rectify) and step.mask is not None:
        return replace(step, mask=window.cut(step.mask, owners))
    return step


#: The switches of a pool relative to the corners of their own pool windows, for windows of some width.
_RELATIVE: WeakKeyDictionary[Pool, tuple[int, torch.Tensor]] = WeakKeyDictionary()


def _switches(window: Window, step: Pool, owners: torch.Tensor, width: int) -> torch.Tensor:
    """(B,C,h,w) positions in maps of `width` columns, whose corner is that of the first pool window."""
    known, relative = _RELATIVE.get(step, (None, None))
    (rows, columns), device = step.shape[-2:], step.switches.device
    if known != width:
        top = torch.arange(rows, device=device)[:, None] * step.stride[0] - step.padding[0]
        left = torch.arange(columns, device=device) * step.stride[1] - step.padding[1]
        relative = (step.switches // step.size[1] - top) * width + step.switches % step.size[1] - left
        _RELATIVE[step] = width, relative
    h, w = (torch.arange(n, device=device) * s for n, s in zip(window.values.shape[2:], step.stride))
    return window.cut(relative, owners).add_(h[:, None] * width + w)
