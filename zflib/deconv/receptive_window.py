"""The way down without the zeros: one activation touches only its receptive field, so only that is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..record.steps import Step
from ..record.tape import Tape

if TYPE_CHECKING:
    from .deconvnet import Deconvnet

LOCAL = {"filter", "rectify", "pool", "scale", "pass"}
FLOATS = 2**24  # of the largest map in one chunk: 64 MB


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


def possible(chain: list[Step] | None) -> bool:
    """Whether every step is local, so that windows can follow the signal down."""
    return chain is not None and all(
        s.kind in LOCAL and len(s.shape) == 4 and ("kernel" in s.values or s.kind != "pool") for s in chain
    )


def order(tape: Tape, positions: torch.Tensor) -> torch.Tensor:
    """Seeds by their distance from the border, so that the seeds of one chunk have windows of similar size."""
    last = torch.tensor(tape.activations.shape[-2:], device=positions.device) - 1
    nearest = torch.minimum(positions, last - positions)
    return (nearest[:, 0] * (int(last.max()) + 1) + nearest[:, 1]).argsort(stable=True)


def descend(net: Deconvnet, tape: Tape, chain: list[Step], seeds: Seeds) -> Window:
    """The window of the image, (B,3,h,w), that each seed reaches: as `Deconvnet._whole`, without the zeros."""
    values = F.one_hot(seeds.channels, tape.activations.shape[1]).to(seeds.values) * seeds.values[:, None]
    window = Window(values[:, :, None, None], *seeds.positions.unbind(-1))
    sources = [tape.steps[0], *chain[:-1]]
    for step, source in zip(chain[::-1], sources[::-1]):
        window = _down(net, step, window, seeds.owners).fit(*source.shape[-2:])
    return window


def _down(net: Deconvnet, step: Step, window: Window, owners: torch.Tensor) -> Window:
    v = step.values
    if step.kind == "filter":
        values = _filter(window.values, v)
    elif step.kind == "pool":
        values = _unpool(window, step, owners)
    elif step.kind == "rectify":
        mask = window.cut(v["mask"], owners) if "mask" in v else None
        return Window(net.rectified_(window.values, mask), window.top, window.left)
    else:
        return Window(net.down(step, window.values, owners)[0], window.top, window.left)
    (sy, sx), (py, px) = v["stride"], v["padding"]
    return Window(values, window.top * sy - py, window.left * sx - px)


def _offsets(step: Step, width: int) -> torch.Tensor:
    """(N,C,h,w) place of each switch relative to its own window's corner, in rows of `width` values."""
    v, (rows, columns) = step.values, step.shape[-2:]
    device = v["switches"].device
    top = torch.arange(rows, device=device)[:, None] * v["stride"][0] - v["padding"][0]
    left = torch.arange(columns, device=device) * v["stride"][1] - v["padding"][1]
    return (v["switches"] // v["size"][1] - top) * width + v["switches"] % v["size"][1] - left


def _unpool(window: Window, step: Step, owners: torch.Tensor) -> torch.Tensor:
    """Each value goes where its switch points, within the window; overlapping ones add up."""
    v, (b, c, h, w) = step.values, window.values.shape
    sides = zip((h, w), v["stride"], v["dilation"], v["kernel"])
    height, width = ((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in sides)
    if v.get("width") != width:
        v["width"], v["offsets"] = width, _offsets(step, width)
    rows, columns = (torch.arange(n, device=window.values.device) * s for n, s in zip((h, w), v["stride"]))
    places = window.cut(v["offsets"], owners).add_(rows[:, None] * width + columns)
    maps = window.values.new_zeros(b, c, height * width)
    return maps.scatter_add_(-1, places.flatten(2), window.values.flatten(2)).unflatten(-1, (height, width))


def _filter(maps: torch.Tensor, v: dict) -> torch.Tensor:
    """The transposed filter of whole windows, borders included."""
    weight, stride, groups, dilation = v["weight"], v["stride"], v["groups"], v["dilation"]
    plain = groups == 1 and dilation == (1, 1) and stride[0] == stride[1]
    if plain and stride[0] > 1 and weight.shape[1] <= 16:
        return _subpixel(maps, weight, stride[0])
    return F.conv_transpose2d(maps, weight, None, stride, 0, 0, groups, dilation)


def _subpixel(maps: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """As `conv_transpose2d`, as one plain convolution: each of the stride x stride phases is a channel of its own.

    Faster where few channels come out (conv1 gives three), since the phases fill the processor's vectors.
    """
    cin, cout, kh, kw = weight.shape
    th, tw = -(-kh // stride), -(-kw // stride)  # taps that reach one phase
    phases = F.pad(weight, (0, tw * stride - kw, 0, th * stride - kh)).view(cin, cout, th, stride, tw, stride)
    filters = phases.permute(1, 3, 5, 0, 2, 4).reshape(cout * stride * stride, cin, th, tw).flip(-1, -2)
    pixels = F.pixel_shuffle(F.conv2d(maps, filters, padding=(th - 1, tw - 1)), stride)
    return pixels[..., : (maps.shape[-2] - 1) * stride + kh, : (maps.shape[-1] - 1) * stride + kw]
